"""Runs under way in MLflow: what a browser sees while training goes on."""

import os
import shutil
import subprocess
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from mlflow.entities import ViewType
from tracked import copy_store, runs_of

import tiny
from forks import FORKS
from results_records import make_run
from spectralgru.pipeline.tracking import follow, open_store, track
from spectralgru.pipeline.tracking.live import read_live
from spectralgru.records import write_history

PTB, NAME = "spectralgru/quick/ptb", "constraint-0.2 seed 0"


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A finished run, kept aside, to be shown epoch by epoch."""
    return make_run(tmp_path / "aside" / "quick", "ptb", "constraint", 0.2, 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "results" / "quick"


def show(finished: Path, directory: Path, epochs: int) -> None:
    """Leave `directory` as the trainer does after so many epochs."""
    directory.mkdir(parents=True, exist_ok=True)
    write_history(directory, read_live(finished, "quick").rows[:epochs])


def curve(uri: str, run_id: str, name: str = "epoch/valid_loss") -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in open_store(uri).get_metric_history(run_id, name)]


def test_a_run_grows_and_becomes_the_finished_run(finished, root, uri, tmp_path):
    directory = root / "runs/ptb/constraint-0.2/seed-0"
    losses = [(int(row["epoch"]), row["valid_loss"]) for row in read_live(finished, "quick").rows]
    seen = set()
    for epochs in (0, 2, 3, 3):
        show(finished, directory, epochs)
        assert track(root, [directory], uri).running == 1
        found = runs_of(uri, PTB)
        assert set(found) == {"constraint-0.2", NAME}
        run = found[NAME]
        assert (run.info.status, found["constraint-0.2"].info.status) == ("RUNNING", "RUNNING")
        assert run.data.tags["status"] == "running"
        assert run.data.tags["mlflow.parentRunId"] == found["constraint-0.2"].info.run_id
        assert curve(uri, run.info.run_id) == losses[:epochs]
        seen.add(run.info.run_id)
    shutil.copytree(finished, directory, dirs_exist_ok=True)
    done = track(root, [directory], uri)
    assert (done.running, done.written) == (0, 2)
    found = runs_of(uri, PTB)
    run = found[NAME]
    assert seen == {run.info.run_id}
    assert (run.info.status, found["constraint-0.2"].info.status) == ("FINISHED", "FINISHED")
    assert run.data.tags["status"] == "finished"
    assert curve(uri, run.info.run_id) == losses
    assert set(run.data.params) >= {"delta", "training.epochs"}

    # What grew is what an import at one go makes.
    again = copy_store(uri.removeprefix("sqlite:///"), tmp_path / "again.db")
    open_store(again).delete_run(run.info.run_id)
    track(root, [directory], again)
    whole = runs_of(again, PTB)[NAME]
    assert whole.info.run_id != run.info.run_id
    assert whole.data.metrics == run.data.metrics
    assert whole.data.params == run.data.params
    assert {k: v for k, v in whole.data.tags.items() if k != "mlflow.parentRunId"} == {
        k: v for k, v in run.data.tags.items() if k != "mlflow.parentRunId"
    }
    assert track(root, [directory], uri).written == 0


def test_a_training_begun_anew_gets_a_run_of_its_own(finished, root, uri):
    directory = root / "runs/ptb/constraint-0.2/seed-0"
    show(finished, directory, 4)
    track(root, [directory], uri)
    first = runs_of(uri, PTB)[NAME].info.run_id
    rows = read_live(finished, "quick").rows
    write_history(directory, [rows[0] | {"valid_loss": 9.0}])
    track(root, [directory], uri)
    second = runs_of(uri, PTB)[NAME].info.run_id
    assert second != first
    assert curve(uri, second) == [(1, 9.0)]
    client = open_store(uri)
    experiment = client.get_experiment_by_name(PTB).experiment_id
    deleted = client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)
    assert first in {run.info.run_id for run in deleted}


def test_a_silent_run_is_marked_interrupted_until_it_goes_on(finished, root, uri):
    directory = root / "runs/ptb/constraint-0.2/seed-0"
    show(finished, directory, 2)
    track(root, [directory], uri)
    old = time.time() - 3600
    os.utime(directory / "history.csv", (old, old))
    track(root, [directory], uri)
    run = runs_of(uri, PTB)[NAME]
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "interrupted")
    show(finished, directory, 3)
    track(root, [directory], uri)
    again = runs_of(uri, PTB)[NAME]
    assert (again.info.status, again.info.run_id) == ("RUNNING", run.info.run_id)
    assert len(curve(uri, run.info.run_id)) == 3


def follow_to_the_end(root: Path, uri: str, runs: list[Path], data: Path, tests: Connection) -> None:
    tests.send("begun")
    done = follow(partial(track, root, runs, uri, data=data, scale="quick"), runs, 0.1)
    tests.send(done.running)


def test_a_real_training_is_followed_to_its_end(tmp_path, uri):
    """`track` beside the trainer's own process: states seen on the way, one run a seed at the end."""
    tiny.write_corpora(tmp_path / "data")
    job = tiny.job("ptb", tuple(tiny.replica(seed=seed, rate=0.3) for seed in (0, 1)), epochs=25)
    root = tmp_path / "results"
    runs = [root / f"runs/ptb/constraint-0.2/seed-{seed}" for seed in (0, 1)]
    ours, theirs = FORKS.Pipe()
    follower = FORKS.Process(target=follow_to_the_end, args=(root, uri, runs, tmp_path / "data", theirs))
    follower.start()
    ours.recv()
    trainer = subprocess.Popen(tiny.command(job, tmp_path))
    seen: set[tuple[str, str]] = set()
    client = open_store(uri)
    while trainer.poll() is None or follower.is_alive():
        if client.get_experiment_by_name(PTB):
            found = client.search_runs([client.get_experiment_by_name(PTB).experiment_id])
            seen |= {
                (r.info.run_id, r.info.status)
                for r in found
                if r.info.run_name.endswith(("seed 0", "seed 1"))
            }
        time.sleep(0.2)
    assert trainer.returncode == 0
    assert (follower.exitcode, ours.recv()) == (0, 0)
    found = runs_of(uri, PTB)
    assert set(found) == {"constraint-0.2", NAME, "constraint-0.2 seed 1"}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    for seed in (0, 1):
        run_id = found[f"constraint-0.2 seed {seed}"].info.run_id
        assert (run_id, "RUNNING") in seen
        assert [step for step, _ in curve(uri, run_id)] == list(range(1, 26))
