"""The campaign for a GPU, rehearsed on a CPU: from a copied tree to records that the tables take."""

import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tarfile
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import tiny
from faults.processes import wait_for
from results_records import write_results
from spectralgru.files import sha256, write_json
from spectralgru.pipeline.corpora.recipe import RECIPE
from spectralgru.pipeline.params import load_params
from spectralgru.pipeline.provenance.explain import read_record
from spectralgru.records import read_run
from spectralgru.setting import Setting
from spectralgru.training.data.dataset import load
from spectralgru.training.job_file import job_from_dict
from spectralgru.training.settings import Job, code_sha256

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import gpu_campaign
import gpu_check
import gpu_home

ROOT = Path(__file__).parents[2]
SETTINGS = [Setting("constraint", 0.2), Setting("clipping", 5.0)]
COPIED = ("src", "tests/gpu", "tests/tiny.py", "scripts", "pyproject.toml")
COMMIT = "0123456789abcdef"


def job(**training: object) -> Job:
    runs = tuple(tiny.replica(*setting, seed, 0.3) for seed in (0, 1, 2) for setting in SETTINGS)
    return tiny.job("ptb", runs, **training)


def tree(folder: Path, epochs: int) -> Path:
    """A copy of the files that git does not ignore, with data and jobs beside them."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *COPIED],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    tiny.write_corpora(folder / "data")
    write_json(folder / "scripts/jobs/ptb.json", asdict(job(epochs=epochs)))
    (folder / "scripts/jobs/source").write_text(f"{COMMIT} {code_sha256()}\n")
    return folder


def campaign(folder: Path, out: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(folder / "scripts/gpu_campaign.py"), "--bring-home", out]
    command += ["--seconds", "200", "--every", "0.3", "--device", "cpu", "--seed", "0", "1", *options]
    environment = tiny.environment(OMP_NUM_THREADS="1")
    environment.pop("PYTHONPATH", None)
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def contents(out: Path) -> dict[str, bytes]:
    """The files of what was brought home, each whole and within the limits."""
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) <= 8
    assert all(path.parent == out and path.stat().st_size <= 16 << 20 for path in files)
    json.loads((out / "bench.json").read_text())
    found = {}
    with tarfile.open(out / "runs.tar.gz") as archive:
        for member in archive:
            found[member.name] = archive.extractfile(member).read()
    return found


def names(archive: Path) -> list[str]:
    """What is in an archive, nothing if there is none yet."""
    if not archive.exists():
        return []
    with tarfile.open(archive) as file:
        return file.getnames()


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A campaign whose first command is killed, as at a limit, and whose second waits for its trainer."""
    folder = tree(tmp_path_factory.mktemp("machine"), epochs=150)
    first = campaign(folder, "killed")
    history = folder / "results/paper/runs/ptb/clipping-5/seed-1/history.csv"
    wait_for(lambda: history.exists() and history.read_text().count("\n") > 2, first)
    wait_for(lambda: (folder / "killed/tests.log").exists(), first)
    home = {f"{run}/history.csv" for run in runs_of((0, 1))}
    wait_for(lambda: home <= set(names(folder / "killed/runs.tar.gz")), first)
    send(folder, signal.SIGSTOP)  # on a fast machine it would end before the second command has begun
    try:
        first.kill()
        first.communicate()
        second = campaign(folder, "home")
        begun = second.stdout.readline()
    finally:
        send(folder, signal.SIGCONT)
    output, _ = second.communicate(timeout=200)
    assert second.returncode == 0, output
    return folder, begun + output


def send(folder: Path, number: signal.Signals) -> None:
    """Send a signal to the training of that machine."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (process / "cmdline").read_bytes().split(b"\0")
            if b"spectralgru.training" in line and any(os.fsencode(folder) in part for part in line):
                os.kill(int(process.name), number)


def test_a_killed_command_has_brought_home_how_far_the_runs_had_come(rehearsal: tuple[Path, str]) -> None:
    folder, _ = rehearsal
    files = contents(folder / "killed")
    for run in runs_of((0, 1)):
        assert f"{run}/run.json" not in files
        assert files[f"{run}/history.csv"].startswith(b"epoch,")
    log = (folder / "killed/campaign.log").read_text()
    assert "smoke: the projection is right" in log
    assert "smoke: the captured step is right" in log
    assert "ptb: 4 of 4 runs" in log


def test_the_second_command_waits_and_brings_all_records_home(rehearsal: tuple[Path, str]) -> None:
    folder, output = rehearsal
    assert output.splitlines()[0] == "a trainer is at work: waiting for it"
    assert output.splitlines()[-1] == "all planned runs are trained"
    files = contents(folder / "home")
    assert sorted(files) == sorted(
        f"{run}/{name}" for run in runs_of((0, 1)) for name in ("history.csv", "run.json", "steps.csv")
    )
    for run in runs_of((0, 1)):
        record = json.loads(files[f"{run}/run.json"])
        assert (record["status"], record["git_commit"], record["replicas"]) == ("finished", COMMIT, 4)
        model = sha256(folder / "results/paper" / run / "model.safetensors")
        assert record["files"]["model.safetensors"] == model
        assert files[f"{run}/history.csv"].count(b"\n") == 151
    assert not list(folder.glob("results/paper/runs/*/*/seed-2"))


def runs_of(seeds: tuple[int, ...]) -> list[str]:
    return [f"runs/ptb/{setting.name}/seed-{seed}" for setting in SETTINGS for seed in seeds]


def results(folder: Path, data: Path, archive: Path, seed: int) -> Path:
    """All that the workflow makes of one seed's runs, from what came home alone."""
    root = folder / f"seed-{seed}/results/quick"
    with tarfile.open(archive) as file:
        file.extractall(root, [m for m in file if f"/seed-{seed}/" in m.name], filter="data")
    write_results(root, {"ptb": SETTINGS}, [seed], data)
    return root


def test_what_came_home_is_shown_in_tables_and_joins_a_record(
    rehearsal: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = rehearsal
    prepared = tmp_path / "data/prepared/ptb.json"
    about = json.loads((folder / "data/prepared/ptb.json").read_text())
    write_json(prepared, about | {"recipe": RECIPE, "raw": {}, "licence": "free", "counts": {}})
    first, second = (
        results(tmp_path, tmp_path / "data", folder / "home/runs.tar.gz", seed) for seed in (0, 1)
    )
    record = tmp_path / "record"
    record.mkdir()
    for name in ("provenance.json", "claims.json", "tables/runs.csv"):
        shutil.copy(first / name, record)
    history = tiny.run([sys.executable, str(ROOT / "scripts/history.py"), str(first)])
    (record / "history.csv").write_text(history.stdout)
    runpy.run_path(str(ROOT / "scripts/join.py"))["main"](record, second)
    table = pd.read_csv(record / "table1.csv").query("source == 'ours' and quantity == 'test perplexity'")
    for setting in SETTINGS:
        (row,) = table[table["setting"] == setting.name].to_dict("records")
        found = [
            read_run(folder / f"results/paper/runs/ptb/{setting.name}/seed-{k}").best["test"] for k in (0, 1)
        ]
        assert row["n"] == 2
        assert row["mean"] == pytest.approx(sum(found) / 2, rel=1e-5)
    for path, run in read_record(record)["runs"].items():
        model = sha256(folder / "results/paper" / path / "model.safetensors")
        assert run["files"]["model.safetensors"] == model


def test_a_wrong_projection_ends_it_before_anything_is_trained(tmp_path: Path) -> None:
    folder = tree(tmp_path, epochs=1)
    code = folder / "src/spectralgru/projection/tracked.py"
    right = code.read_text()
    wrong = right.replace("bound * (1 - margin)", "bound * 1.01")
    assert wrong != right
    code.write_text(wrong)
    process = campaign(folder, "home")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "smoke: the projection FAILED: call 1 is" in output
    assert output.splitlines()[-1] == "nothing is trained"
    assert (folder / "home/campaign.log").read_text() == output
    assert not (folder / "results").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "0", "3"], "--seed 3: {jobs}/ptb.json has no such seed"),
        (["--corpora", "nottingham"], "{jobs}/nottingham.json: cannot be read"),
        (["--jobs", "none"], "none: no jobs; make them with scripts/gpu_jobs.py"),
        (["--device", "gpu"], "device gpu: unknown; use cpu, cuda or cuda:N"),
        pytest.param(
            ["--device", "cuda"], "device cuda: this torch sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU"),
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_one_clear_line(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = tmp_path / "jobs"
    write_json(jobs / "ptb.json", asdict(job()))
    places = [f"--{name}={tmp_path / name}" for name in ("bring-home", "jobs", "checkpoints", "out")]
    monkeypatch.setattr(sys, "argv", ["gpu_campaign.py", *places, "--device", "cpu", *options])
    assert gpu_campaign.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.format(jobs=jobs) in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs"]


def test_jobs_hold_all_runs_of_the_tables_a_seed_s_together(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/gpu_jobs.py", "--out", str(tmp_path)]
    done = tiny.run(command, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    params = load_params(ROOT / "params.yaml", {"scale": "paper"})
    for corpus in ("ptb", "nottingham"):
        found = job_from_dict(json.loads((tmp_path / f"{corpus}.json").read_text()))
        alone = params.job(corpus, [Setting("constraint", 0.2)])
        assert len(found.replicas) == len(params.run_directories(corpus))
        settings = params.settings(corpus)
        assert [(r.method, r.value) for r in gpu_check.first_seed(found)] == settings
        assert [r.seed for r in found.replicas] == sorted(r.seed for r in found.replicas)
        # The record of a run says the same whichever way it was trained.
        assert found.key(alone.replicas[0], "") == alone.key(alone.replicas[0], "")
    (one,) = gpu_campaign.chosen_jobs(tmp_path, ["ptb"], [4])[0]
    assert one == replace(one, replicas=tuple(r for r in one.replicas if r.seed == 4))
    assert [j.corpus for j in gpu_campaign.chosen_jobs(tmp_path, None, [0])[0]] == ["ptb", "nottingham"]


def test_as_many_runs_as_fit_whole_seeds_first(tmp_path: Path) -> None:
    tiny.write_corpora(tmp_path)
    corpus = load(tmp_path / "prepared/ptb.npz")
    timing = gpu_check.Timing(job(epochs=100), corpus, torch.device("cpu"), None)
    timing.measured = {1: 1.0, 2: 2.0, 6: 6.0}  # 2,000 steps
    start, step = gpu_check.START_SECONDS, 2 * gpu_check.OVERHEAD
    assert timing.seconds(4) == pytest.approx(start + 4 * step)
    for steps, runs in ((9, 6), (5, 4), (4.1, 4), (3.9, 2), (1.5, 1), (0.9, 0)):
        assert timing.fitting(start + steps * step) == runs


def test_what_comes_home_keeps_to_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records beyond the two archives stay behind and are named; logs are cut from the front."""
    monkeypatch.setattr(gpu_home, "FILE_BYTES", 1 << 20)
    monkeypatch.setattr(gpu_home, "LOG_BYTES", 100)
    root, work, out = (tmp_path / name for name in ("root", "work", "out"))
    work.mkdir()
    (work / "trainer.log").write_text("begin\n" * 100 + "end\n")
    runs = [Path("runs/ptb/none") / f"seed-{seed}" for seed in range(5)]
    for run in runs[:4]:
        (root / run).mkdir(parents=True)
        (root / run / "history.csv").write_bytes(random.Random(run.name).randbytes(500_000))
        (root / run / "model.safetensors").write_bytes(b"weights")
    home = gpu_home.Home(out, root, runs, work)
    (out / gpu_home.PARTIAL).write_text("left by a kill")
    assert home.bring() == ["runs/ptb/none/seed-2", "runs/ptb/none/seed-3"]
    names = []
    for archive in gpu_home.ARCHIVES:
        assert (out / archive).stat().st_size <= 1 << 20
        with tarfile.open(out / archive) as file:
            names += file.getnames()
    assert names == [f"{run.as_posix()}/history.csv" for run in runs[:2]]
    assert (out / "trainer.log").stat().st_size == 100
    assert (out / "trainer.log").read_text().endswith("end\n")
    assert sorted(path.name for path in out.iterdir()) == sorted([*gpu_home.ARCHIVES, "trainer.log"])
