"""Ranks that split every batch reach the same result as one process."""

import csv
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

import forks
import tiny
from forks import Fork
from spectralgru.training.settings import Job
from spectralgru.training.stopping import EXIT_STOPPED

REPLICAS = {
    "ptb": (tiny.replica("constraint", 1.4, 0, 0.3), tiny.replica("clipping", 1.0, 1, 0.3)),
    "chorales": (tiny.replica("constraint", 1.4, 0, 0.05), tiny.replica("clipping", 1.0, 1, 0.05)),
}
# 20 lanes: two ranks share them evenly, three do not (7, 7, 6). At least 50 steps each.
JOBS = {
    "ptb": tiny.job("ptb", REPLICAS["ptb"], batch_size=20, bptt_steps=5, epochs=5, trace_every=1),
    "chorales": tiny.job(
        "chorales", REPLICAS["chorales"], batch_size=20, bptt_steps=5, epochs=7, trace_every=1
    ),
}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def ranks(job: Job, folder: Path, world: int, *options: str, commands: Path | None = None) -> list[str]:
    """A launcher on so many ranks, which are real processes, or forks where `commands` are such."""
    python, *rest = tiny.command(job, folder, "--processes", str(world), *options)
    return [str(commands / "python") if commands else python, *rest]


def steps(folder: Path, corpus: str) -> dict[str, list[dict[str, float]]]:
    found = {}
    for path in sorted((folder / "results/runs" / corpus).rglob("steps.csv")):
        with path.open() as file:
            found[path.parent.parent.name] = [
                {k: float(v) for k, v in r.items()} for r in csv.DictReader(file)
            ]
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for corpus, job in JOBS.items():
        folders[corpus] = tmp_path_factory.mktemp(corpus)
        tiny.write_corpora(folders[corpus] / "data")
        finished = tiny.train(job, folders[corpus])
        assert finished.returncode == 0, finished.stderr
    return folders


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, commands: Path) -> Callable[[str, int], tuple[Path, str]]:
    """The job of a corpus on so many ranks: where, and what it said. Each is run once."""

    @cache
    def run(corpus: str, world: int) -> tuple[Path, str]:
        folder = tmp_path_factory.mktemp(f"{corpus}-{world}")
        tiny.write_corpora(folder / "data")
        finished = forks.run(ranks(JOBS[corpus], folder, world, commands=commands))
        assert finished.returncode == 0, finished.stderr
        return folder, finished.stdout

    return run


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("corpus", ["ptb", "chorales"])
def test_ranks_come_to_the_result_of_one_process(
    split: Callable[[str, int], tuple[Path, str]], alone: dict[str, Path], corpus: str, world: int
) -> None:
    """Norms, singular values and radii over 50 steps and more, with dropout, constraint and clipping."""
    folder, said = split(corpus, world)
    expected, found = steps(alone[corpus], corpus), steps(folder, corpus)
    assert set(found) == {"constraint-1.4", "clipping-1"}
    for setting, rows in expected.items():
        assert len(rows) == len(found[setting]) >= 50
        for row, theirs in zip(rows, found[setting], strict=True):
            for column in ("grad_norm", "sigma_max", "spectral_radius", "growth"):
                assert theirs[column] == pytest.approx(row[column], rel=1e-4), (setting, row["step"])
    assert max(row["grad_norm"] for row in found["clipping-1"]) > 1.0  # there was something to clip
    assert max(row["sigma_max"] for row in found["constraint-1.4"]) <= 0.6 * (1 + 1e-6)
    for path in (folder / "results").rglob("run.json"):
        record = json.loads(path.read_text())
        reference = json.loads((alone[corpus] / path.relative_to(folder)).read_text())
        assert record["status"] == reference["status"]
        assert record["best"] == pytest.approx(reference["best"], rel=1e-4)
    # One rank speaks and writes.
    assert said.count("epoch 1/") == 1
    assert len(list((folder / "results").rglob("run.json"))) == 2


@pytest.mark.parametrize("corpus", ["ptb", "chorales"])
def test_runs_of_three_ranks_come_to_the_same_bits_together_and_alone(
    tmp_path: Path, split: Callable[[str, int], tuple[Path, str]], commands: Path, corpus: str
) -> None:
    """They go on alone after a kill between the checkpoints of one step, or when the others have ended."""
    tiny.write_corpora(tmp_path / "data")
    for run in REPLICAS[corpus]:
        finished = forks.run(ranks(replace(JOBS[corpus], replicas=(run,)), tmp_path, 3, commands=commands))
        assert finished.returncode == 0, finished.stderr
    alone, together = (tiny.outcome(f / "results") for f in (tmp_path, split(corpus, 3)[0]))
    for found in (alone, together):
        for name, record in found.items():
            if name.endswith("run.json"):
                del record["replicas"]  # how many were trained together
    assert alone == together


def test_killed_and_started_again_three_ranks_come_to_the_same_bits(
    tmp_path: Path, split: Callable[[str, int], tuple[Path, str]], commands: Path
) -> None:
    tiny.write_corpora(tmp_path / "data")
    command = ranks(JOBS["ptb"], tmp_path, 3, "--checkpoint-seconds", "0")
    process = Fork(command, merged=True)
    wait_for(lambda: any((tmp_path / "checkpoints").glob("*.previous.pt")), process)
    process.kill()  # the launcher itself: its ranks must not train on alone
    process.communicate(timeout=60)
    second = forks.run(ranks(JOBS["ptb"], tmp_path, 3, commands=commands))
    assert second.returncode == 0, second.stderr
    assert "resumed at epoch" in second.stdout
    assert "waiting" not in second.stdout
    assert tiny.outcome(tmp_path / "results") == tiny.outcome(split("ptb", 3)[0] / "results")


def wait_for(condition, process: Fork | subprocess.Popen[str] | None = None, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended too soon ({process.returncode}): {process.communicate()}")
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def ranks_of(agent: int) -> list[int]:
    """Process ids of the ranks below a launcher."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == agent:
            found.append(int(stat.parent.name))
    return sorted(found)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_when_a_rank_fails_the_others_stop_in_time(
    tmp_path: Path, fault: signal.Signals, commands: Path
) -> None:
    """A dead rank is noticed at once, a hanging one after the timeout (5 s here) and 20 s of grace."""
    job = tiny.job("ptb", REPLICAS["ptb"], batch_size=20, bptt_steps=5, epochs=100_000)
    tiny.write_corpora(tmp_path / "data")
    command = ranks(job, tmp_path, 2, "--checkpoint-seconds", "0.2")
    environment = tiny.environment(SPECTRALGRU_RANK_TIMEOUT="5")
    process = Fork(command, env=environment, merged=True)
    try:
        wait_for(lambda: any((tmp_path / "checkpoints").glob("*.previous.pt")), process)
        started = ranks_of(process.pid)
        assert len(started) == 2
        os.kill(started[1], fault)
        begin = time.monotonic()
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 1
        assert "Traceback" not in output
        assert "spectralgru: another process of the job has ended or hangs\n" in output
        assert time.monotonic() - begin < (20 if fault == signal.SIGKILL else 60)
        wait_for(lambda: not any(alive(pid) for pid in started), seconds=5)
    finally:
        process.kill()
    short = tiny.job("ptb", REPLICAS["ptb"], batch_size=20, bptt_steps=5, epochs=1)
    again = forks.run(ranks(short, tmp_path, 2, commands=commands))  # the place is usable again
    assert again.returncode == 0, again.stderr


def test_input_that_every_rank_refuses_is_bad_input_of_the_job(tmp_path: Path, commands: Path) -> None:
    tiny.write_corpora(tmp_path / "data")
    command = ranks(JOBS["ptb"], tmp_path, 2, "--debug", commands=commands)
    refused = forks.run(command[:-1], env=tiny.environment(SPECTRALGRU_RANK_TIMEOUT="soon"))
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[0] == (
        "spectralgru: SPECTRALGRU_RANK_TIMEOUT=soon: give a number of seconds, for example 300"
    )
    assert "Traceback" not in refused.stderr
    debugged = forks.run(command, env=tiny.environment(SPECTRALGRU_RANK_TIMEOUT="soon"))
    assert "Traceback" in debugged.stderr


def test_weights_that_differ_between_ranks_are_an_error(tmp_path: Path) -> None:
    script = tmp_path / "differ.py"
    script.write_text(
        "import sys, torch\n"
        "from spectralgru.errors import RunError\n"
        "from spectralgru.training.distributed import joined\n"
        "with joined('cpu') as (ranks, device):\n"
        "    weight = torch.ones(5)\n"
        "    ranks.check_same([weight])\n"
        "    weight[3] += 1e-7 * ranks.rank\n"
        "    try:\n"
        "        ranks.check_same([weight])\n"
        "    except RunError as error:\n"
        "        print(f'refused: {error}')\n"
        "    try:\n"
        "        ranks.agreed(lambda: 1 / 0)\n"
        "    except (ZeroDivisionError, RunError) as error:\n"
        "        print(f'told: {error}')\n"
    )
    result = tiny.run([*TORCHRUN, "2", str(script)])
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("refused: the weights differ between ranks") == 2
    assert result.stdout.count("told: division by zero") == 2


def test_two_jobs_started_at_once_do_not_disturb_each_other(tmp_path: Path, commands: Path) -> None:
    """Two launchers on one machine."""
    job = tiny.job("ptb", (tiny.replica(rate=0.3),), epochs=1, batch_size=4)
    processes = []
    for number in range(2):
        folder = tmp_path / str(number)
        tiny.write_corpora(folder / "data")
        processes.append(Fork(ranks(job, folder, 2, commands=commands), merged=True))
    outputs = [process.communicate(timeout=280)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 2, outputs
    outcomes = [tiny.outcome(tmp_path / str(number) / "results") for number in range(2)]
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert len(outcomes[0]) == 4


# Notes every class that is looked up for a pickle; torch's loading of weights alone does without.
NOTING = """
import os, sys
def note(event, arguments):
    if event == "pickle.find_class":
        with open(os.environ["NOTES"], "a") as file:
            file.write(f"{arguments}\\n")
sys.addaudithook(note)
"""


class Intruder:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def listeners(pids: list[int]) -> list[tuple[str, int]]:
    """Addresses and ports on which these processes take TCP connections."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                sockets.add(str(descriptor.readlink()))
    found = []
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address, port = fields[1].split(":")
                words = bytes.fromhex(address)
                packed = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found.append((socket.inet_ntop(family, packed), int(port, 16)))
    return found


def test_ranks_listen_on_the_loopback_interface_alone_and_unpickle_nothing(tmp_path: Path) -> None:
    """A scan of a job's ports, something hostile to each of them, a stop, and a checkpoint told to every rank."""
    tiny.write_corpora(tmp_path / "data")
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch/sitecustomize.py").write_text(NOTING)
    paths = f"{tmp_path / 'patch'}:{os.environ.get('PYTHONPATH', '')}"
    environment = tiny.environment(
        PYTHONPATH=paths, NOTES=str(tmp_path / "notes"), GLOO_SOCKET_IFNAME="no-such-interface"
    )
    endless = tiny.job("ptb", REPLICAS["ptb"], batch_size=20, bptt_steps=5, epochs=100_000)
    process = subprocess.Popen(
        ranks(endless, tmp_path, 2, "--checkpoint-seconds", "0.2"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: any((tmp_path / "checkpoints").glob("*.previous.pt")), process)
        ports = listeners([process.pid, *ranks_of(process.pid)])
        assert ports
        assert {address for address, _ in ports} <= {"127.0.0.1", "::1"}
        payload = pickle.dumps(Intruder(tmp_path / "intruder"))
        for place in ports:
            for content in (payload, len(payload).to_bytes(8, "little") + payload, bytes(1000)):
                with suppress(OSError), socket.create_connection(place, timeout=5) as connection:
                    connection.sendall(content)
        newest, *_ = set((tmp_path / "checkpoints").glob("*-cpu.pt"))
        written = newest.stat().st_mtime_ns
        wait_for(lambda: newest.exists() and newest.stat().st_mtime_ns > written, process)  # it goes on
        process.terminate()
        output, _ = process.communicate(timeout=60)
        assert process.returncode == EXIT_STOPPED, output
    finally:
        process.kill()
    again = subprocess.Popen(ranks(endless, tmp_path, 2), env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert again.stdout is not None
        assert any("resumed at epoch" in line for line in again.stdout)
        again.terminate()
        again.communicate(timeout=60)
    finally:
        again.kill()
    assert not (tmp_path / "intruder").exists()
    assert not (tmp_path / "notes").exists(), (tmp_path / "notes").read_text()
