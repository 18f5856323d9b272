"""Whole trainings: their records and their bits."""

import csv
import json
import math
import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Timer

import pytest

import tiny
from spectralgru.errors import InputError
from spectralgru.pipeline import cli
from spectralgru.records import run_path
from spectralgru.training.__main__ import main
from spectralgru.training.data.baselines import unigram_loss
from spectralgru.training.data.dataset import load
from spectralgru.training.locks import held, run_lock
from spectralgru.training.settings import Job
from spectralgru.training.train import train

WORDS = (
    tiny.replica("constraint", 0.2, 0, 0.3),
    tiny.replica("constraint", 1.4, 0, 0.3),
    tiny.replica("clipping", 0.5, 1, 0.3),
    tiny.replica("none", None, 2, 0.3),
)
MUSIC = (tiny.replica("constraint", 1.4, 0, 0.05), tiny.replica("clipping", 1.0, 1, 0.05))
JOBS = {"ptb": tiny.job("ptb", WORDS), "chorales": tiny.job("chorales", MUSIC, epochs=4)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    tiny.write_corpora(folder)
    return folder


def trained(job: Job, data: Path, folder: Path, say=print, **more: object):
    places = (data / "prepared" / f"{job.corpus}.npz", folder / "results", folder / "checkpoints")
    return train(job, *places, say=say, **more)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for corpus, job in JOBS.items():
        folders[corpus] = tmp_path_factory.mktemp(corpus)
        trained(job, data, folders[corpus])
    return folders


def rows(folder: Path, corpus: str, setting: str, seed: int, name: str) -> list[dict[str, float]]:
    path = folder / f"results/runs/{corpus}/{setting}/seed-{seed}/{name}.csv"
    with path.open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_records_say_what_was_done(undisturbed: dict[str, Path], data: Path) -> None:
    folder = undisturbed["ptb"]
    for setting, seed, method, value in [
        ("constraint-0.2", 0, "constraint", 0.2),
        ("clipping-0.5", 1, "clipping", 0.5),
        ("none", 2, "none", None),
    ]:
        record = json.loads((folder / f"results/runs/ptb/{setting}/seed-{seed}/run.json").read_text())
        assert (record["method"], record["value"], record["seed"]) == (method, value, seed)
        assert record["status"] == "finished"
        assert record["replicas"] == 4
        history = rows(folder, "ptb", setting, seed, "history")
        assert [row["epoch"] for row in history] == [1, 2, 3]
        assert [row["learning_rate"] for row in history] == pytest.approx([0.3, 0.3, 0.2])
        best = min(history, key=lambda row: row["valid_loss"])
        assert record["best"]["valid_loss"] == pytest.approx(best["valid_loss"])
        assert record["best"]["valid"] == pytest.approx(math.exp(best["valid_loss"]))
        assert record["best"]["test"] == pytest.approx(math.exp(record["best"]["test_loss"]))
        assert history[-1]["valid_loss"] < unigram_loss(load(data / "prepared/ptb.npz"), "valid")


def test_the_constraint_holds_at_every_recorded_step(undisturbed: dict[str, Path]) -> None:
    for corpus, setting, bound in [
        ("ptb", "constraint-0.2", 1.8),
        ("ptb", "constraint-1.4", 0.6),
        ("chorales", "constraint-1.4", 0.6),
    ]:
        steps = rows(undisturbed[corpus], corpus, setting, 0, "steps")
        history = rows(undisturbed[corpus], corpus, setting, 0, "history")
        assert len(steps) >= 20
        for row in (*steps, *history):
            assert 0 < row["sigma_max"] <= bound * (1 + 1e-6)
        for row in steps:  # |lambda_1(J)| <= sigma_1 / 4 + 1 / 2 < 1
            assert 0 < row["spectral_radius"] <= bound / 4 + 0.5 + 1e-6
        assert sum(row["projections_done"] for row in history) > 0 or bound == 1.8


def test_clipped_and_free_runs_record_norms_and_singular_values_as_they_are(
    undisturbed: dict[str, Path],
) -> None:
    for setting, seed in (("clipping-0.5", 1), ("none", 2)):
        steps = rows(undisturbed["ptb"], "ptb", setting, seed, "steps")
        history = rows(undisturbed["ptb"], "ptb", setting, seed, "history")
        assert max(row["grad_norm"] for row in steps) > 0.5  # before clipping
        assert max(row["sigma_max"] for row in steps) > 1.0
        assert all(row["projections_done"] == 0 == row["saturated"] for row in history)
        norm_max = max(row["grad_norm_max"] for row in history)
        assert norm_max == pytest.approx(max(row["grad_norm"] for row in steps))


def test_steps_end_with_the_last_interval_even_a_short_one(data: Path, tmp_path: Path) -> None:
    job = tiny.job("ptb", (tiny.replica(rate=0.3),), epochs=2, trace_every=7)
    trained(job, data, tmp_path)
    steps = rows(tmp_path, "ptb", "constraint-0.2", 0, "steps")
    history = rows(tmp_path, "ptb", "constraint-0.2", 0, "history")
    assert [row["step"] for row in steps] == [7, 14, 21, 28, 35, 40]
    assert max(r["grad_norm"] for r in steps) == pytest.approx(max(r["grad_norm_max"] for r in history))


@pytest.mark.parametrize("corpus", ["ptb", "chorales"])
def test_the_same_command_twice_gives_the_same_bits(
    data: Path, tmp_path: Path, undisturbed: dict[str, Path], corpus: str
) -> None:
    trained(JOBS[corpus], data, tmp_path)
    expected = tiny.outcome(undisturbed[corpus] / "results")
    assert len(expected) == 4 * len(JOBS[corpus].replicas)
    assert tiny.outcome(tmp_path / "results") == expected


def test_a_finished_job_is_left_alone_and_a_new_seed_alone_is_trained(data: Path, tmp_path: Path) -> None:
    one = tiny.job("ptb", (tiny.replica(seed=0, rate=0.3),))
    two = tiny.job("ptb", (tiny.replica(seed=0, rate=0.3), tiny.replica(seed=1, rate=0.3)))
    trained(one, data, tmp_path)
    folder = tmp_path / "results/runs/ptb/constraint-0.2"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    heard: list[str] = []
    trained(one, data, tmp_path, say=heard.append)
    assert heard == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")} == before
    trained(two, data, tmp_path, say=heard.append)
    assert "1 runs together" in heard[0]
    assert all("of 1 runs" in line for line in heard[1:])
    after = {path: path.stat().st_mtime_ns for path in (folder / "seed-0").iterdir()}
    assert after.items() <= before.items()
    assert [run["seed"] for run in json.loads((folder / "setting.json").read_text())["runs"]] == [0, 1]


def test_a_diverging_run_is_recorded_and_the_others_go_on(
    data: Path, tmp_path: Path, undisturbed: dict[str, Path]
) -> None:
    wild = tiny.replica("none", None, 5, 1e30)
    trained(tiny.job("ptb", (*WORDS, wild)), data, tmp_path)
    record = json.loads((tmp_path / "results/runs/ptb/none/seed-5/run.json").read_text())
    assert record["status"] == "diverged"
    assert record["diverged"]["epoch"] == 1
    assert 1 <= record["diverged"]["step"] <= 20
    assert "not finite" in record["diverged"]["reason"]
    found, expected = tiny.outcome(tmp_path / "results"), tiny.outcome(undisturbed["ptb"] / "results")
    for name, value in expected.items():
        if name.endswith("run.json"):
            assert found[name]["best"] == value["best"]
        else:
            assert found[name] == value


def test_a_run_that_diverges_in_an_unfinished_interval_keeps_its_trace(data: Path, tmp_path: Path) -> None:
    wild, tame = tiny.replica("none", None, 5, 1e30), tiny.replica("constraint", 0.2, 0, 0.3)
    trained(tiny.job("ptb", (wild, tame), epochs=2, trace_every=30), data, tmp_path)
    record = json.loads((tmp_path / "results/runs/ptb/none/seed-5/run.json").read_text())
    assert record["diverged"]["step"] <= 20
    (row,) = rows(tmp_path, "ptb", "none", 5, "steps")
    assert (row["step"], row["epoch"]) == (20, 1)  # an epoch has 20 steps
    assert not math.isfinite(row["grad_norm"])
    assert math.isnan(row["sigma_max"])
    assert math.isnan(row["spectral_radius"])
    assert [row["step"] for row in rows(tmp_path, "ptb", "constraint-0.2", 0, "steps")] == [30, 40]


def test_histories_do_not_hold_up_short_epochs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow disk a history is written less often than an epoch ends, and is whole in the end."""
    fsync, calls = os.fsync, []

    def slow(file: int) -> None:
        calls.append(Path(f"/proc/self/fd/{file}").resolve().name)
        if calls[-1].startswith(".history"):
            time.sleep(0.2)
        fsync(file)

    monkeypatch.setattr(os, "fsync", slow)
    job = tiny.job("ptb", (tiny.replica(rate=0.1), tiny.replica(seed=1, rate=0.1)), epochs=20)
    trained(job, data, tmp_path)
    assert 4 <= len([name for name in calls if name.startswith(".history")]) <= 20
    assert len(rows(tmp_path, "ptb", "constraint-0.2", 1, "history")) == 20


def test_a_run_no_better_than_unigrams_has_diverged(data: Path, tmp_path: Path) -> None:
    (run,) = trained(tiny.job("ptb", (tiny.replica(rate=1e-6),), epochs=1), data, tmp_path)
    assert run.status == "diverged"
    assert run.diverged is not None
    assert "no better than" in run.diverged["reason"]


def test_the_trainer_needs_torch_and_numpy_alone(data: Path, tmp_path: Path) -> None:
    """The trainer's entry point, in a process where nothing else of the environment can be imported."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    forbidden = "pydantic yaml typer rich scipy pandas mlflow dvc snakemake safetensors matplotlib httpx mido"
    (blocked / "sitecustomize.py").write_text(
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {forbidden.split()!r}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    job = tiny.job("ptb", (tiny.replica(rate=0.3),), epochs=1)
    command = tiny.command(job, tmp_path, "--data", str(data))
    environment = tiny.environment(PYTHONPATH=str(blocked))
    finished = tiny.run(command, env=environment)
    assert finished.returncode == 0, finished.stderr
    assert "constraint-0.2 seed 0: finished" in finished.stdout
    refused = tiny.run([tiny.PYTHON, "-c", "import yaml"], env=environment)
    assert refused.returncode != 0


@pytest.mark.parametrize("device", ["bogus", "cuda:-1", "meta"])
def test_an_unknown_device_is_one_clear_line(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    device: str,
) -> None:
    with pytest.raises(InputError, match=f"device {device}: unknown; use cpu, cuda or cuda:N"):
        trained(JOBS["ptb"], data, tmp_path, device=device)
    params = Path(__file__).parents[2] / "params.yaml"
    for command in ("train --corpus ptb --method none", "experiment learning_rate"):
        options = (
            f"{command} --processes 2 --device {device} --params {params} --out {tmp_path} --data {data}"
        )
        monkeypatch.setattr("sys.argv", ["spectralgru", *options.split()])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"device {device}: unknown" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "option",
    [
        "--threads -1",
        "--threads 99999999999999999999",
        "--together 0",
        "--processes -1",
        "--checkpoint-seconds nan",
        "--threads 5000",
    ],
)
def test_numbers_out_of_bounds_are_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main(["job.json", "--out", str(tmp_path / "results"), *option.split()]) == 2
    assert capsys.readouterr().err.startswith(f"spectralgru: {option}: give ")


def test_output_that_nobody_takes_is_blamed_on_no_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = tiny.command(JOBS["ptb"], tmp_path, "--data", str(data))[3:]
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        assert main(command) == 1
        patch.undo()
        with suppress(OSError):
            full.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("spectralgru: standard output: No space left on device; ")


def test_an_interrupted_command_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = Path(__file__).parents[2] / "params.yaml"
    options = f"train --corpus ptb --method none --seeds 0 --params {params} --out {tmp_path} --data {data}"
    options += f" --checkpoints {tmp_path}/c"
    monkeypatch.setattr("sys.argv", ["spectralgru", *options.split()])
    interruption = Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    interruption.start()
    with held(run_lock(run_path(tmp_path, "ptb", "none", None, 0))), pytest.raises(SystemExit) as left:
        cli.main()  # waits for the run that is trained elsewhere
    assert left.value.code == 130
    assert capsys.readouterr().err == "spectralgru: interrupted\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ("{", "not even JSON"), ('{"corpus": "ptb"}', "key scale is missing")],
)
def test_a_bad_job_file_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    file = tmp_path / "bad.json"
    if content is not None:
        file.write_text(content)
    assert main([str(file), "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line
    assert message in line


@pytest.mark.parametrize(
    ("seeds", "message"), [([0, 1, 0], "none seed 0 appears twice"), ([-1], "at least 0")]
)
def test_a_job_file_whose_seeds_are_wrong_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seeds: list[int], message: str
) -> None:
    job = asdict(tiny.job(replicas=tuple(tiny.replica("none", None, seed, 0.3) for seed in seeds)))
    file = tmp_path / "job.json"
    file.write_text(json.dumps(job))
    assert main([str(file), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line
    assert message in line
    assert not (tmp_path / "out").exists()
