"""Faults around the workflow: jobs killed, two people at once, a dying MLflow server, half-written tables."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from processes import trainers, wait_for

from campaign import TABLE, Campaign
from spectralgru.training.stopping import EXIT_STOPPED

CORES = ("--cores", "1")
SPECTRALGRU = str(Path(sys.executable).parent / "spectralgru")


def campaign(folder: Path, **options: Path) -> Campaign:
    made = Campaign(folder, constraint=[0.2], clipping=[5.0], seeds=[0], **options)
    made.ptb["training"]["epochs"] = 40
    made.write_params()
    made.use_tiny_corpus()
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, commands: Path) -> Campaign:
    made = campaign(tmp_path_factory.mktemp("finished"), commands=commands)
    code, output = made.run(*CORES, TABLE)
    assert code == 0, output
    return made


@pytest.fixture
def copy(finished: Campaign, tmp_path: Path, commands: Path) -> Campaign:
    made = campaign(tmp_path / "copy", commands=commands)
    for name in ("results", "data"):
        shutil.copytree(finished.folder / name, made.folder / name, dirs_exist_ok=True)
    return made


def spectralgru(project: Campaign, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["spectralgru", *arguments],
        cwd=project.folder,
        env=project.environment | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("fault", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_job_that_is_stopped_or_killed_is_started_again(
    finished: Campaign, tmp_path: Path, fault: signal.Signals
) -> None:
    project = campaign(tmp_path)
    history = project.folder / "results/quick/runs/ptb"
    process = project.start(*CORES, TABLE)

    def under_way() -> bool:  # a few epochs of the first setting are done
        return any(p.read_text().count("\n") > 3 for p in history.rglob("history.csv"))

    wait_for(under_way, process)
    (trainer,) = trainers(project.folder)
    os.kill(trainer, fault)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert f"exit status {EXIT_STOPPED if fault == signal.SIGTERM else 128 + fault}" in output
    logs = [path.read_text() for path in (project.folder / "logs/train").rglob("*.log")]
    assert sum("resumed at epoch" in log for log in logs) == (fault == signal.SIGTERM), logs
    assert project.tables() == finished.tables()


def test_two_people_start_the_same_workflow(finished: Campaign, tmp_path: Path) -> None:
    """Snakemake locks the folder: the second is told so and changes nothing."""
    project = campaign(tmp_path)
    first = project.start(*CORES, TABLE)
    wait_for(lambda: trainers(project.folder), first)
    code, output = project.run(*CORES, TABLE)
    assert code != 0
    assert "Directory cannot be locked" in output
    assert first.poll() is None
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 0, output
    assert project.tables() == finished.tables()


def test_an_interrupted_table_is_whole_or_not_there(copy: Campaign, finished: Campaign) -> None:
    """`spectralgru tables` killed at moments spread over its run: every table is the old one, the new one or absent."""
    tables = copy.folder / "results/quick/tables"
    expected = finished.tables()
    command = [SPECTRALGRU, "tables", "--corpus", "ptb"]
    begin = time.monotonic()
    subprocess.run(command, cwd=copy.folder, env=copy.environment, check=True, capture_output=True)
    whole = time.monotonic() - begin
    shutil.rmtree(tables)
    for share in (0.7, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98, 1.0):
        process = subprocess.Popen(
            command,
            cwd=copy.folder,
            env=copy.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(whole * share)
        process.kill()
        process.wait()
        for name, content in copy.tables().items():
            assert content == expected[name]
    assert spectralgru(copy, "tables", "--corpus", "ptb").returncode == 0
    assert copy.tables() == expected


def test_a_deleted_run_directory_is_noticed_and_trained_again(copy: Campaign, finished: Campaign) -> None:
    shutil.rmtree(copy.folder / "results/quick/runs/ptb/constraint-0.2/seed-0")
    code, output = copy.run(*CORES, TABLE)
    assert code == 0, output
    assert "setting=constraint-0.2" in output
    assert "setting=clipping-5" not in output
    assert copy.tables() == finished.tables()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    options = [
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
        "--artifacts-destination",
        f"{folder}/files",
    ]
    options += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def answers() -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(answers)
    return server


def records(project: Campaign) -> dict[str, bytes]:
    folder = project.folder / "results/quick/runs"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_mlflow_out_of_reach_or_dying_costs_no_run(copy: Campaign, tmp_path: Path) -> None:
    before = records(copy)
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    result = spectralgru(copy, "track", "--corpus", "ptb", MLFLOW_TRACKING_URI=uri)
    assert result.returncode == 1
    assert uri in result.stderr.splitlines()[-1]
    assert "track again" in result.stderr

    server = start_server(tmp_path, port)
    try:
        tracking = subprocess.Popen(
            [SPECTRALGRU, "track", "--corpus", "ptb"],
            cwd=copy.folder,
            env=copy.environment | {"MLFLOW_TRACKING_URI": uri},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: experiments(tmp_path), tracking)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
    _, errors = tracking.communicate(timeout=120)
    assert tracking.returncode == 1
    assert "nothing is lost" in errors
    assert records(copy) == before

    server = start_server(tmp_path, port)
    try:
        result = spectralgru(copy, "track", "--corpus", "ptb", MLFLOW_TRACKING_URI=uri)
        assert result.returncode == 0, result.stderr
        again = spectralgru(copy, "track", "--corpus", "ptb", MLFLOW_TRACKING_URI=uri)
        assert "0 MLflow runs written" in again.stdout
    finally:
        os.killpg(server.pid, signal.SIGKILL)


def experiments(folder: Path) -> bool:
    """Whether the import has begun: the server's database has our experiment."""
    try:
        with closing(sqlite3.connect(f"file:{folder}/server.db?mode=ro", uri=True)) as database:
            found = database.execute("select count(*) from experiments where name like 'spectralgru/%'")
            return bool(found.fetchone()[0])
    except sqlite3.Error:
        return False
