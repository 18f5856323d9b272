"""The campaign for a GPU, its training part on a CPU: from params.yaml to run directories that the workflow takes."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import tiny
from spectralgru.pipeline.params import load_params
from spectralgru.records import is_finished
from spectralgru.training.data.dataset import load
from spectralgru.training.settings import job_from_dict

ROOT = Path(__file__).parents[2]


def campaign(folder: Path, minutes: float, *options: str) -> subprocess.CompletedProcess[str]:
    places = [f"--{name}={folder / name}" for name in ("jobs", "data", "out", "checkpoints")]
    return tiny.run(
        [tiny.PYTHON, str(ROOT / "scripts/gpu_campaign.py"), *places, f"--minutes={minutes}", *options],
        env=tiny.environment(OMP_NUM_THREADS="1"),
    )


def test_jobs_hold_all_runs_of_the_tables(tmp_path):
    done = tiny.run([sys.executable, "scripts/gpu_jobs.py", "--out", str(tmp_path)], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    params = load_params(ROOT / "params.yaml", {"scale": "paper"})
    for corpus in ("ptb", "nottingham"):
        job = job_from_dict(json.loads((tmp_path / f"{corpus}.json").read_text()))
        alone = params.job(corpus, [("constraint", 0.2)])
        assert len(job.replicas) == len(params.run_directories(corpus))
        # The record of a run says the same whichever way it was trained.
        assert job.key(alone.replicas[0], "") == alone.key(alone.replicas[0], "")


def test_training_stops_with_the_time_and_goes_on(tmp_path):
    tiny.write_corpora(tmp_path / "data")
    (tmp_path / "jobs").mkdir()
    replicas = (tiny.replica("constraint", 0.2, 0, 0.3), tiny.replica("clipping", 5.0, 1, 0.3))
    jobs = [tiny.job("ptb", replicas, epochs=10), tiny.job("chorales", replicas)]
    for job in jobs:
        (tmp_path / "jobs" / f"{job.corpus}.json").write_text(json.dumps(asdict(job)))
    train = ("--steps", "train", "--device", "cpu")
    stopped = campaign(tmp_path, 0.05, *train)
    assert stopped.returncode == 75, stopped.stderr
    done = campaign(tmp_path, 5, *train, "--together", "1")
    assert done.returncode == 0, done.stderr
    for job in jobs:
        sha = load(tmp_path / "data/prepared" / f"{job.corpus}.npz").sha256
        for one in job.replicas:
            directory = tmp_path / "out/runs" / job.corpus / one.setting / f"seed-{one.seed}"
            assert is_finished(directory, job.key(one, sha))


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU")
def test_without_a_gpu_it_says_so_before_anything_is_done(tmp_path):
    done = campaign(tmp_path, 1)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "device cuda: this torch sees no GPU; install a CUDA build of torch or use --device cpu"
    ]


def test_without_jobs_it_says_how_to_make_them(tmp_path):
    done = campaign(tmp_path, 1, "--steps", "train", "--device", "cpu")
    assert done.returncode == 2
    assert "scripts/gpu_jobs.py" in done.stderr
