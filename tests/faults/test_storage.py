"""A disk that is full or read-only, folders that vanish: one clear line, and nothing lost that was there."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import wait_for

import tiny
from forks import Fork

JOB = tiny.job(
    "ptb", (tiny.replica("constraint", 0.2, 0, 0.3), tiny.replica("clipping", 0.5, 1, 0.3)), epochs=12
)
EARLIER = tiny.job("ptb", (tiny.replica("none", None, 7, 0.3),), epochs=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place with one finished run in it."""
    tiny.write_corpora(tmp_path / "data")
    finished = tiny.train(EARLIER, tmp_path)
    assert finished.returncode == 0, finished.stderr
    return tmp_path


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def refused(result: subprocess.CompletedProcess[str], reason: str) -> None:
    assert result.returncode == 1, (result.stdout, result.stderr)
    (line,) = result.stderr.splitlines()
    assert reason in line
    assert "continues from there" in line


def test_disk_full_of_checkpoints(folder: Path, disk: Path) -> None:
    earlier = tiny.outcome(folder / "results")
    (disk / "ballast").write_bytes(b"x" * 360_000)
    options = ("--checkpoints", str(disk), "--checkpoint-seconds", "0")
    refused(tiny.train(JOB, folder, *options), "No space left on device")
    assert tiny.outcome(folder / "results").items() >= earlier.items()
    (disk / "ballast").unlink()
    finished = tiny.train(JOB, folder, *options)
    assert finished.returncode == 0, finished.stderr
    assert list(disk.iterdir()) == []


def test_disk_full_of_results(folder: Path, disk: Path) -> None:
    shutil.copytree(folder / "results", disk / "results")
    earlier = tiny.outcome(disk / "results")
    free = shutil.disk_usage(disk).free
    (disk / "ballast").write_bytes(b"x" * (free - 12_288))
    options = ("--out", str(disk / "results"))
    refused(tiny.train(JOB, folder, *options), "No space left on device")
    left = tiny.outcome(disk / "results")
    assert {name: left[name] for name in earlier} == earlier
    assert not list(disk.rglob("*partial*"))
    (disk / "ballast").unlink()
    assert tiny.train(JOB, folder, *options).returncode == 0
    assert len(list(disk.rglob("run.json"))) == 3


def test_read_only_disk(folder: Path, disk: Path) -> None:
    shutil.copytree(folder / "results", disk / "results")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    options = ("--out", str(disk / "results"))
    refused(tiny.train(JOB, folder, *options), "Read-only file system")
    refused(tiny.train(JOB, folder, "--checkpoints", str(disk / "c")), "Read-only file system")
    assert tiny.train(EARLIER, folder, *options).returncode == 0  # finished: nothing to write


def test_run_directory_deleted_while_it_trains(folder: Path) -> None:
    earlier = tiny.outcome(folder / "results")
    command = tiny.command(JOB, folder)
    process = Fork(command)
    own = folder / "results/runs/ptb/constraint-0.2"
    wait_for(lambda: (own / "seed-0/history.csv").exists(), process)
    process.send_signal(signal.SIGSTOP)
    shutil.rmtree(own)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    found = tiny.outcome(folder / "results")
    assert found.items() >= earlier.items()
    assert len([name for name in found if name.startswith("runs/ptb/constraint-0.2/seed-0/")]) == 4


def test_a_deleted_run_is_trained_again_to_the_same_bits_and_no_other(folder: Path) -> None:
    assert tiny.train(JOB, folder).returncode == 0
    before = tiny.outcome(folder / "results")
    kept = folder / "results/runs/ptb/clipping-0.5/seed-1/run.json"
    written = kept.stat().st_mtime_ns
    shutil.rmtree(folder / "results/runs/ptb/constraint-0.2/seed-0")
    finished = tiny.train(JOB, folder)
    assert finished.returncode == 0, finished.stderr
    assert kept.stat().st_mtime_ns == written
    after = tiny.outcome(folder / "results")
    changed = {name for name in before if after[name] != before[name]}
    # It was alone this time: `replicas` says so.
    assert changed <= {"runs/ptb/constraint-0.2/seed-0/run.json"}
