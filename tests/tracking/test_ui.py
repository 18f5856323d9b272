"""`spectralgru ui` as a person starts it: at which address, for whom, and what it says when it cannot."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tracked import copy_store

from servers import Server
from spectralgru.pipeline.cli import main

SECRET = "S3cret/with@signs"


def answer(url: str, *, data: dict | None = None, **headers: str) -> tuple[int, str]:
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as got:
            return got.status, got.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def fails(monkeypatch, capfd, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and messages of a command that ends."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["spectralgru", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = "".join(capfd.readouterr())
    assert "MLflow: http" not in said
    return ended.value.code, said


@pytest.fixture(scope="module")
def ui(empty_store: Path, tmp_path_factory) -> Iterator[Server]:
    """At this machine's name."""
    folder = tmp_path_factory.mktemp("ui")
    server = Server(copy_store(empty_store, folder / "mlflow.db"), folder, "--host", socket.gethostname())
    server.start()
    yield server
    server.kill()


def test_nobody_gets_in_without_the_address(ui: Server):
    api = "api/2.0/mlflow/experiments/create"
    for path in (
        "",
        api,
        "ajax-" + api,
        "graphql",
        "token=/" + api,
        ui.url.rpartition("/")[2][:-1] + "/" + api,
    ):
        code, text = answer(f"{ui.place}/{path}", data={"name": "mine", "artifact_location": "file:///etc"})
        assert (code, "spectralgru ui" in text) == (401, True), path
    for path in ("", "api/2.0/mlflow-artifacts/artifacts", "get-artifact?path=x&run_uuid=y"):
        assert answer(f"{ui.place}/{path}")[0] == 401
    assert "mine" not in answer(f"{ui.url}/api/2.0/mlflow/experiments/search?max_results=100")[1]
    for file in Path("/proc").glob("[0-9]*/cmdline"):  # what every user may read
        try:
            assert ui.url.rpartition("=")[2] not in file.read_text(errors="replace")
        except OSError:
            continue  # ended meanwhile


def test_it_works_at_the_name_it_was_given(ui: Server):
    assert socket.gethostname() in ui.place
    assert answer(ui.page)[0] == 200
    code, _ = answer(
        f"{ui.url}/ajax-api/2.0/mlflow/experiments/create", data={"name": "by name"}, Origin=ui.place
    )
    assert code == 200
    for headers in ({"Host": "elsewhere.example"}, {"Origin": "http://elsewhere.example"}):
        code, _ = answer(f"{ui.url}/ajax-api/2.0/mlflow/experiments/create", data={"name": "no"}, **headers)
        assert code == 403


def test_a_port_that_is_taken_is_said_not_shown(ui: Server, uri: str, monkeypatch, capfd):
    command = ("ui", "--host", socket.gethostname(), "--port", str(ui.port))
    code, said = fails(monkeypatch, capfd, *command, MLFLOW_TRACKING_URI=uri)
    assert code == 2
    [line] = said.strip().splitlines()
    assert f"--port {ui.port}" in line
    assert "in use" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--port", "99999"], "99999"),
        (["--port", "-1"], "-1"),
        (["--host", "192.0.2.1", "--port", "0"], "192.0.2.1"),
        (["--host", "no such host", "--port", "0"], "no such host"),
        (["--host", "a" * 70, "--port", "0"], "a" * 70),
    ],
)
def test_what_cannot_be_listened_to_is_bad_usage(uri: str, monkeypatch, capfd, arguments, named):
    code, said = fails(monkeypatch, capfd, "ui", *arguments, MLFLOW_TRACKING_URI=uri)
    assert code == 2
    [line] = said.strip().splitlines()
    assert named in line


@pytest.mark.parametrize("command", [["ui", "--port", "0"], ["track"], ["--debug", "track"]])
@pytest.mark.parametrize(
    "store",
    [
        f"postgresql://me:{SECRET}@127.0.0.1:1/runs",
        "http://me:S3cret@127.0.0.1:1/?token=S3cret&password=S3cret",
    ],
)
def test_no_message_tells_a_password(monkeypatch, capfd, command, store):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, said = fails(monkeypatch, capfd, *command, MLFLOW_TRACKING_URI=store)
    assert code == (2 if store.startswith("http") and "ui" in command else 1)
    for part in ("S3cret", "signs"):
        assert part not in said
    assert "***" in said


def test_a_database_with_a_password_is_served_without_telling_it(database: str, tmp_path: Path):
    server = Server(database.replace("@", ":S3cretword@", 1), tmp_path)
    server.start()
    try:
        assert answer(f"{server.url}/api/2.0/mlflow/experiments/search?max_results=9")[0] == 200
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                assert "S3cretword" not in file.read_text(errors="replace")
            except OSError:
                continue
        assert "S3cretword" not in server.log()
    finally:
        server.kill()
