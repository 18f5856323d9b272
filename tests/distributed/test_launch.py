"""A training on several processes: runs or batches are spread over them; stopping it stops all that it started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_ddp import alive, ranks_of, wait_for

import tiny
from spectralgru.errors import InputError
from spectralgru.training.launch import train_in
from spectralgru.training.stopping import EXIT_STOPPED

REPLICAS = tuple(tiny.replica("constraint", 0.2, seed, 0.3) for seed in range(3))
JOB = tiny.job("ptb", REPLICAS, epochs=2)


def places(folder: Path) -> tuple[Path, Path, Path]:
    tiny.write_corpora(folder / "data")
    return folder / "data", folder / "results", folder / "checkpoints"


def test_runs_spread_over_processes_come_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(commands / "python"))
    one = train_in(JOB, *places(tmp_path / "one"), processes=1, threads=1)
    two = train_in(JOB, *places(tmp_path / "two"), processes=2, threads=2)
    assert [(r.seed, r.best) for r in two] == [(r.seed, r.best) for r in one]
    assert [r.replicas for r in two] == [2, 1, 2]
    for name in ("model.safetensors", "steps.csv"):
        for seed in range(3):
            path = f"results/runs/ptb/constraint-0.2/seed-{seed}/{name}"
            assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    summaries = [
        (tmp_path / name / "results/runs/ptb/constraint-0.2/setting.json").read_text()
        for name in ("one", "two")
    ]
    assert summaries[0] == summaries[1]


def test_fewer_runs_than_processes_split_their_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(commands / "python"))
    job = tiny.job("ptb", REPLICAS[:1], epochs=2)
    (one,) = train_in(job, *places(tmp_path / "one"), processes=1, threads=1)
    (two,) = train_in(job, *places(tmp_path / "two"), processes=2, threads=2)
    assert two.best == pytest.approx(one.best, rel=1e-4)


def test_processes_and_gpus_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="3 processes on 2 GPUs"):
        train_in(JOB, *places(tmp_path), processes=3, gpus=2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match="2 GPUs requested, 0 visible"):
        train_in(JOB, *places(tmp_path), gpus=2)


LAUNCHER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import tiny
from spectralgru.training.launch import train_in
from spectralgru.training.stopping import EXIT_STOPPED, Preempted
folder = Path({folder!r})
job = tiny.job("ptb", tuple(tiny.replica("constraint", 0.2, s, 0.3) for s in range(2)), epochs=100_000)
try:
    train_in(job, folder / "data", folder / "results", folder / "checkpoints", 2, {split!r}, threads=2)
except Preempted as error:
    print(error)
    sys.exit(EXIT_STOPPED)
"""


def descendants(pid: int) -> list[int]:
    below = ranks_of(pid)
    return below + [d for child in below for d in descendants(child)]


@pytest.mark.parametrize("split", ["replicas", "batch"])
@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_what_was_started_ends_with_its_launcher(tmp_path: Path, split: str, kill: signal.Signals) -> None:
    places(tmp_path)
    script = LAUNCHER.format(tests=str(Path(tiny.__file__).parent), folder=str(tmp_path), split=split)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        first_epoch = "results/runs/ptb/constraint-0.2/seed-*/history.csv"
        wait_for(lambda: any(p.stat().st_size > 200 for p in tmp_path.glob(first_epoch)), process)
        started = descendants(process.pid)
        assert len(started) >= 2
        os.kill(process.pid, kill)
        output, _ = process.communicate(timeout=90)
        wait_for(lambda: not any(alive(pid) for pid in started), seconds=10)
    finally:
        process.kill()
    if kill == signal.SIGTERM:
        assert process.returncode == EXIT_STOPPED, output
        assert "checkpoint" in output
        assert any((tmp_path / "checkpoints").glob("*.pt"))
