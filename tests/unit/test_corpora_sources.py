"""Sources: a mirror folder, a web server on this machine that misbehaves in every way we know, wheels, pip."""

import hashlib
import os
import socket
import threading
import time
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from spectralgru.errors import InputError, RunError
from spectralgru.pipeline.corpora import web
from spectralgru.pipeline.corpora.packages import Installed, Wheel
from spectralgru.pipeline.corpora.sources import MIRROR_VARIABLE, RawFile, fetch_file
from spectralgru.pipeline.corpora.web import Url

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_mirror_no_proxy(monkeypatch):
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class Server:
    """Answers each request with the next of `script` (its last for ever): ok, cut, no-range, wrong, or a status."""

    def __init__(self, *script):
        self.script = list(script)
        self.ranges = []  # the Range header of every request
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/tunes.zip"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def answer(self, request):
        how = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        if isinstance(how, int):
            request.send_error(how)
            return
        content = CONTENT[::-1] if how == "wrong" else CONTENT
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and how != "no-range" else 0
        if start >= len(content):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        request.wfile.write(content[start : len(content) // 2 if how == "cut" else None])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def tunes(*sources):
    return RawFile("tunes.zip", (SHA,), sources)


def test_download(tmp_path, capsys):
    with Server("ok") as server:
        assert fetch_file("jigs", tunes(Url(server.url)), tmp_path) == server.url
    assert (tmp_path / "tunes.zip").read_bytes() == CONTENT
    assert names(tmp_path) == ["tunes.zip"]
    assert capsys.readouterr().err == f"jigs: tunes.zip from {server.url}\n"


def test_what_is_there_is_verified_and_not_fetched_again(tmp_path):
    with Server("ok") as server:
        file = tunes(Url(server.url))
        fetch_file("jigs", file, tmp_path)
        assert fetch_file("jigs", file, tmp_path) is None
        assert len(server.ranges) == 1
        (tmp_path / "tunes.zip").write_bytes(CONTENT[:-1])
        with pytest.raises(
            InputError, match=rf"tunes\.zip: wrong content \(SHA-256 expected {SHA}, found .*delete it"
        ):
            fetch_file("jigs", file, tmp_path)


def test_busy_server_is_asked_again(tmp_path):
    with Server(503, 503, "ok") as server:
        fetch_file("jigs", tunes(Url(server.url)), tmp_path)
        assert len(server.ranges) == 3


@pytest.mark.parametrize(
    ("then", "ranges"),
    [("ok", [None, f"bytes={len(CONTENT) // 2}-"]), ("no-range", [None, f"bytes={len(CONTENT) // 2}-"])],
)
def test_cut_connection_is_resumed(tmp_path, then, ranges):
    with Server("cut", then) as server:
        fetch_file("jigs", tunes(Url(server.url)), tmp_path)
        assert server.ranges == ranges
    assert (tmp_path / "tunes.zip").read_bytes() == CONTENT


def test_interrupted_download_is_resumed_by_the_next_call(tmp_path):
    with Server("cut", 404) as server:
        file = tunes(Url(server.url))
        with pytest.raises(RunError, match="HTTP 404"):
            fetch_file("jigs", file, tmp_path)
        [partial] = tmp_path.iterdir()
        assert partial.suffix == ".partial"
        assert partial.read_bytes() == CONTENT[: len(CONTENT) // 2]
        server.script = ["ok"]
        fetch_file("jigs", file, tmp_path)
        assert server.ranges[-1] == f"bytes={len(CONTENT) // 2}-"
    assert names(tmp_path) == ["tunes.zip"]
    assert (tmp_path / "tunes.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("half", [b"of something else", CONTENT + b"too long"], ids=["other", "long"])
def test_half_of_something_else_is_dropped(tmp_path, half):
    with Server("cut", 404) as server:
        file = tunes(Url(server.url))
        with pytest.raises(RunError):
            fetch_file("jigs", file, tmp_path)
        next(tmp_path.iterdir()).write_bytes(half)
        server.script = ["ok"]
        fetch_file("jigs", file, tmp_path)
    assert (tmp_path / "tunes.zip").read_bytes() == CONTENT
    assert names(tmp_path) == ["tunes.zip"]


def test_wrong_content_is_refused_and_the_next_source_tried(tmp_path):
    with Server("wrong") as first, Server("ok") as second:
        assert fetch_file("jigs", tunes(Url(first.url), Url(second.url)), tmp_path) == second.url
        assert len(first.ranges) == 1
    assert (tmp_path / "tunes.zip").read_bytes() == CONTENT
    assert names(tmp_path) == ["tunes.zip"]


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_no_source_reachable_names_each_and_what_to_do(tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    (mirror / "jigs").mkdir(parents=True)
    (mirror / "jigs" / "tunes.zip").write_bytes(b"damaged")
    monkeypatch.setenv(MIRROR_VARIABLE, str(mirror))
    nobody = f"http://127.0.0.1:{closed_port()}/tunes.zip"
    folder = tmp_path / "raw"
    with Server(404) as missing, Server("wrong") as wrong:
        sources = Url(missing.url), Url(wrong.url), Url(nobody), Url("http://no-such-host.invalid/tunes.zip")
        with pytest.raises(RunError) as refused:
            fetch_file("jigs", tunes(*sources), folder)
        assert len(missing.ranges) == 1  # a 404 is final
    lines = str(refused.value).splitlines()
    found = hashlib.sha256(b"damaged").hexdigest()
    assert lines[0] == f"jigs: no source has tunes.zip (SHA-256 {SHA}):"
    assert (
        f"{mirror / 'jigs' / 'tunes.zip'}: wrong content (SHA-256 expected {SHA}, found {found})" in lines[1]
    )
    assert f"unset {MIRROR_VARIABLE}" in lines[1]
    assert lines[2] == f"  {missing.url}: HTTP 404 Not Found"
    assert lines[3].startswith(f"  {wrong.url}: wrong content")
    assert "refused" in lines[4]
    assert lines[5].startswith("  http://no-such-host.invalid/tunes.zip: ")
    assert f"Put the file at {folder / 'tunes.zip'} by hand" in lines[6]
    assert list(folder.iterdir()) == []  # nothing half-written


def test_mirror_comes_first(tmp_path, monkeypatch):
    (tmp_path / "mirror" / "jigs").mkdir(parents=True)
    (tmp_path / "mirror" / "jigs" / "tunes.zip").write_bytes(CONTENT)
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path / "mirror"))
    with Server("ok") as server:
        assert fetch_file("jigs", tunes(Url(server.url)), tmp_path / "raw") == "mirror"
        assert server.ranges == []
    assert (tmp_path / "raw" / "tunes.zip").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("begin", "more", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-More: x\r\n", "not received after 1 s"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", b"x", "not received after 1 s"),
        (b"HTTP/1.1 200 OK\r\n\r\n", bytes(1 << 16), "more than 1048576 bytes"),
    ],
    ids=["headers without end", "a byte at a time", "content without end"],
)
def test_a_download_has_an_end(tmp_path, monkeypatch, begin, more, reason):
    monkeypatch.setattr(web, "SECONDS", 1)
    monkeypatch.setattr(web, "BYTES", 1 << 20)
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.recv(4096)
                connection.sendall(begin)
                while True:
                    connection.sendall(more)
                    time.sleep(0.1 if len(more) < 100 else 0)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    start = time.monotonic()
    with pytest.raises(RunError, match=reason):
        fetch_file("jigs", tunes(Url(f"http://127.0.0.1:{listener.getsockname()[1]}/")), tmp_path / "raw")
    assert time.monotonic() - start < 5
    listener.close()
    assert sum(path.stat().st_size for path in (tmp_path / "raw").iterdir()) < 100


def test_a_raw_file_that_is_none_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "tunes.zip")
    with pytest.raises(InputError, match=r"tunes\.zip: not a file; delete it"):
        fetch_file("jigs", tunes(), tmp_path)
    (tmp_path / "jigs").mkdir()
    (tmp_path / "tunes.zip").rename(tmp_path / "jigs" / "tunes.zip")
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path))
    with pytest.raises(RunError, match=r"jigs/tunes\.zip: not a file; replace it"):
        fetch_file("jigs", tunes(), tmp_path / "raw")


# Packages


def extract(root, name):
    return (root / "data" / name).read_bytes()


@pytest.fixture
def wheel(tmp_path):
    """A wheel that pip accepts, in a folder that pip looks into, and its source."""
    (tmp_path / "wheels").mkdir()
    path = tmp_path / "wheels" / "jigbook-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("jigbook/__init__.py", "raise SystemExit('nobody runs this')\n")
        archive.writestr("jigbook/data/tunes.zip", CONTENT)
        archive.writestr(
            "jigbook-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: jigbook\nVersion: 1.0\n"
        )
        archive.writestr(
            "jigbook-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("jigbook-1.0.dist-info/RECORD", "")
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, Wheel("jigbook==1.0", path.name, sha, "jigbook", extract)


def test_wheel_is_fetched_with_the_users_pip_configuration(tmp_path, wheel, monkeypatch):
    path, source = wheel
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    folder = tmp_path / "raw"
    assert fetch_file("jigs", tunes(source), folder) == "package jigbook==1.0"
    assert (folder / "tunes.zip").read_bytes() == CONTENT
    assert names(folder) == [path.name, "tunes.zip"]  # the wheel stays, for the other files in it

    (folder / "tunes.zip").unlink()
    path.unlink()  # pip would fail now
    fetch_file("jigs", tunes(source), folder)
    assert (folder / "tunes.zip").read_bytes() == CONTENT


def test_wheel_with_other_content_or_none_at_all_is_refused(tmp_path, wheel, monkeypatch):
    path, source = wheel
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    other = Wheel(source.requirement, source.filename, "0" * 64, source.package, extract)
    folder = tmp_path / "raw"
    with pytest.raises(RunError, match=r"jigbook==1\.0: wrong content \(SHA-256 expected 0{64}, found"):
        fetch_file("jigs", tunes(other), folder)
    path.unlink()
    with pytest.raises(RunError, match=r"jigbook==1\.0: pip download: ERROR: .*jigbook"):
        fetch_file("jigs", tunes(source), folder)
    assert list(folder.iterdir()) == []


def test_installed_package(tmp_path, monkeypatch):
    library = tmp_path / "library"
    (library / "jigbook" / "data").mkdir(parents=True)
    (library / "jigbook" / "__init__.py").write_text("raise SystemExit('nobody runs this')\n")
    (library / "jigbook" / "data" / "tunes.zip").write_bytes(CONTENT)
    (library / "jigbook-2.0.dist-info").mkdir()
    (library / "jigbook-2.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: jigbook\nVersion: 2.0\n"
    )
    source = Installed("jigbook", extract)
    with pytest.raises(RunError, match="installed package jigbook: not installed"):
        fetch_file("jigs", tunes(source), tmp_path / "raw")
    monkeypatch.syspath_prepend(library)
    fetch_file("jigs", tunes(source), tmp_path / "raw")
    assert (tmp_path / "raw" / "tunes.zip").read_bytes() == CONTENT
    (library / "jigbook" / "data" / "tunes.zip").write_bytes(b"revised")
    with pytest.raises(RunError, match=r"jigbook: version 2\.0: wrong content"):
        fetch_file("jigs", tunes(source), tmp_path / "other")
    (library / "jigbook" / "data" / "tunes.zip").unlink()
    with pytest.raises(RunError, match=r"jigbook: not in version 2\.0"):
        fetch_file("jigs", tunes(source), tmp_path / "other")
