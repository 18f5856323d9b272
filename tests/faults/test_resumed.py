"""Jobs that are stopped, overlap or are regrouped: no run is lost or trained twice, and none changes by a bit."""

import shutil
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny
from spectralgru.pipeline.status import run_status
from spectralgru.records import is_finished, read_run, run_path
from spectralgru.training.settings import Job
from spectralgru.training.train import train

RUNS = {
    "ptb": (
        tiny.replica("constraint", 0.2, 0, 0.3),
        tiny.replica("constraint", 1.4, 1, 0.3),
        tiny.replica("clipping", 0.5, 1, 0.3),
        tiny.replica("none", None, 2, 0.1),
    ),
    "chorales": tuple(
        tiny.replica(m, v, s, 0.05) for m, v, s in [("constraint", 1.4, 0), ("clipping", 1.0, 1)]
    ),
}
JOBS = {corpus: tiny.job(corpus, runs) for corpus, runs in RUNS.items()}


class Killed(BaseException):
    """What nothing in the trainer catches."""


def trained(job: Job, folder: Path, until: str | None = None, **more: object) -> list[str]:
    """Train in `folder`, killed when it says `until`; what it said."""
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if until is not None and until in line:
            raise Killed

    places = (folder / f"data/prepared/{job.corpus}.npz", folder / "results", folder / "checkpoints")
    try:
        train(job, *places, say=say, checkpoint_seconds=0.0, **more)
    except Killed:
        said.append("killed")
    return said


def of(job: Job, *runs: int, **training: object) -> Job:
    """Some of its runs, or other settings."""
    chosen = tuple(job.replicas[run] for run in runs) or job.replicas
    return replace(job, replicas=chosen, training=replace(job.training, **training))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("undisturbed")
    tiny.write_corpora(path / "data")
    for job in JOBS.values():
        trained(job, path)
    return path


def outcome(folder: Path, corpus: str) -> dict[str, object]:
    """What the runs came to, whoever their company was."""
    found = tiny.outcome(folder / "results")
    for value in found.values():
        if isinstance(value, dict):
            del value["replicas"]
    return {name: value for name, value in found.items() if f"/{corpus}/" in name}


def anew(folder: Path, tmp_path: Path) -> Path:
    shutil.rmtree(tmp_path, ignore_errors=True)
    shutil.copytree(folder / "data", tmp_path / "data")
    return tmp_path


STAGES = st.lists(
    st.tuples(
        st.sets(st.integers(0, 3), min_size=1), st.sampled_from(["epoch 1/3", "epoch 2/3", "epoch 3/3"])
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("corpus", JOBS)
@given(stages=STAGES)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_killed_jobs_go_on_with_any_other_company_to_the_same_bits(corpus, stages, folder, tmp_path):
    tmp_path, job = anew(folder, tmp_path), JOBS[corpus]
    count = len(job.replicas)
    for runs, until in stages:
        trained(of(job, *{run % count for run in runs}), tmp_path, until)
    trained(job, tmp_path)
    assert outcome(tmp_path, corpus) == outcome(folder, corpus)
    assert not list((tmp_path / "checkpoints").iterdir())
    assert not list((tmp_path / "results").rglob("*.lock"))


def test_a_killed_job_goes_on_from_its_checkpoints_in_more_and_in_fewer_processes(folder, tmp_path):
    tmp_path, job = anew(folder, tmp_path), JOBS["ptb"]
    assert trained(job, tmp_path, "epoch 2/3")[-1] == "killed"
    halves = [
        trained(of(job, *runs), tmp_path, until) for runs, until in (((0, 2), None), ((1, 3), "epoch 3/3"))
    ]
    for said in [*halves, trained(job, tmp_path)]:
        assert any(
            "resumed at epoch 2, step 40" in line or "resumed at epoch 3, step 60" in line for line in said
        )
        assert not any("epoch 1/3" in line for line in said)
    assert outcome(tmp_path, "ptb") == outcome(folder, "ptb")


@pytest.mark.parametrize("overlap", ["the other has a run of mine", "I have the other's"])
def test_overlapping_jobs_share_the_work_and_lose_nothing(folder, tmp_path, overlap):
    tmp_path, job = anew(folder, tmp_path), JOBS["ptb"]
    first = run_path(tmp_path / "results", "ptb", "constraint", 0.2, 0)
    mine, other = (of(job, 0, 1), of(job, 0)) if overlap.startswith("I have") else (of(job, 0), of(job, 0, 1))
    started: list[subprocess.Popen[str]] = []
    heard: list[str] = []

    def say(line: str) -> None:
        if "epoch 1/3" in line:
            command = tiny.command(other, tmp_path)
            started.append(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )
            assert started[0].stdout is not None
            for answer in started[0].stdout:
                heard.append(answer)
                if "is training this already: waiting" in answer:
                    break

    places = (tmp_path / "data/prepared/ptb.npz", tmp_path / "results", tmp_path / "checkpoints")
    train(mine, *places, say=say)
    record = (first / "run.json").read_bytes()
    assert started[0].stdout is not None
    rest = started[0].stdout.read()  # not `communicate`, which does not see what is buffered here
    assert started[0].wait(60) == 0, rest
    assert (first / "run.json").read_bytes() == record
    trains = [line for line in [*heard, *rest.splitlines()] if "runs together" in line]
    assert len(trains) == len(other.replicas) - 1  # what was free, without the other's
    trained(job, tmp_path)
    assert outcome(tmp_path, "ptb") == outcome(folder, "ptb")


def test_other_settings_replace_a_finished_run_when_they_are_finished_themselves(folder, tmp_path):
    tmp_path, job = anew(folder, tmp_path), of(JOBS["ptb"], 0)
    trained(job, tmp_path)
    directory = run_path(tmp_path / "results", "ptb", "constraint", 0.2, 0)
    old = {path.name: path.read_bytes() for path in directory.iterdir()}
    key, longer = read_run(directory).key, of(job, epochs=5)
    assert trained(longer, tmp_path, "epoch 4/5")[-1] == "killed"

    def state(age: float, asked: Job) -> tuple[str, int]:
        now = directory.stat().st_mtime + age
        status = run_status(
            directory, "ptb", "constraint-0.2", 0, 5, now, partial(asked.key, asked.replicas[0])
        )
        return status.state, status.epoch

    assert state(1, longer)[0] == "running"
    assert state(3600, job) == ("finished", 3)
    assert state(3600, longer)[0] == "interrupted"
    assert is_finished(directory, key)
    assert {name: (directory / name).read_bytes() for name in old} == old
    assert trained(job, tmp_path) == []  # the old one is as good as it was
    assert "resumed at epoch 4" in "".join(trained(longer, tmp_path))
    assert sorted(path.name for path in directory.iterdir()) == sorted(old)
    assert read_run(directory).final["epoch"] == 5


def test_a_run_that_another_job_finished_leaves_no_checkpoints(folder, tmp_path):
    tmp_path, job = anew(folder, tmp_path), of(JOBS["ptb"], 0)
    trained(job, tmp_path, "epoch 2/3")
    left = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    trained(job, tmp_path)
    for name, content in left.items():  # as if killed after the record, before they were removed
        (tmp_path / "checkpoints" / name).write_bytes(content)
    trained(job, tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())
