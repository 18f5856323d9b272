"""Ranks on GPUs reach the same result as one process: two that share a GPU (gloo), one by NCCL, and one per GPU."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1]))  # the conftest that does this needs more packages
import tiny
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.distributed import Ranks
from spectralgru.training.engine import Engine
from spectralgru.training.settings import Job, ModelSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

DEVICE = "cuda:0"
RANKS = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", *RANKS]
SETTINGS = (("constraint", 1.4), ("clipping", 1.0))
# At least 50 steps each, with dropout.
JOBS = {
    "ptb": tiny.job(
        "ptb", tuple(tiny.replica(*s, 0, 0.3) for s in SETTINGS), batch_size=20, bptt_steps=5, epochs=5
    ),
    "chorales": tiny.job(
        "chorales", tuple(tiny.replica(*s, 0, 0.05) for s in SETTINGS), batch_size=20, bptt_steps=5, epochs=7
    ),
}
# Of ranks: each a GPU of its own where there are several, one for both in any case.
DEVICES = [
    DEVICE,
    pytest.param("cuda", marks=pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")),
]


def command(job: Job, folder: Path, device: str, ranks: bool) -> list[str]:
    tiny.write_corpora(folder / "data")
    trainer = tiny.command(job, folder, "--device", device, "--checkpoint-seconds", "0.2")
    return [*TORCHRUN, *trainer[1:]] if ranks else trainer


def rows(folder: Path, setting: str) -> list[dict[str, float]]:
    (path,) = folder.glob(f"results/runs/*/{setting}/seed-0/steps.csv")
    with path.open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def compare(found: Path, expected: Path) -> None:
    for setting in ("constraint-1.4", "clipping-1"):
        ours, theirs = rows(found, setting), rows(expected, setting)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3), (setting, a["step"])
            assert a["spectral_radius"] == pytest.approx(b["spectral_radius"], rel=1e-3), (setting, a["step"])
            assert a["sigma_max"] == pytest.approx(b["sigma_max"], rel=2e-2)  # below the bound an estimate
        best = [
            json.loads(next(folder.glob(f"results/runs/*/{setting}/seed-0/run.json")).read_text())["best"]
            for folder in (found, expected)
        ]
        assert best[0] == pytest.approx(best[1], rel=1e-3)
    assert max(row["sigma_max"] for row in rows(found, "constraint-1.4")) <= 0.6 * (1 + 1e-6)
    assert max(row["grad_norm"] for row in rows(found, "clipping-1")) > 1.0  # there was something to clip


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for corpus, job in JOBS.items():
        folders[corpus] = tmp_path_factory.mktemp(corpus)
        done = tiny.run(command(job, folders[corpus], DEVICE, ranks=False))
        assert done.returncode == 0, done.stderr
    return folders


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("corpus", ["ptb", "chorales"])
def test_two_ranks_come_to_the_result_of_one_process(
    tmp_path: Path, alone: dict[str, Path], corpus: str, device: str
) -> None:
    done = tiny.run(command(JOBS[corpus], tmp_path, device, ranks=True))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/") == 1  # one rank speaks
    compare(tmp_path, alone[corpus])


def test_killed_ranks_go_on_to_the_same_result(tmp_path: Path, alone: dict[str, Path]) -> None:
    again = command(JOBS["ptb"], tmp_path, DEVICE, ranks=True)
    process = subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not any((tmp_path / "checkpoints").glob("*.pt")) and process.poll() is None:
        assert time.monotonic() < until, "no checkpoint"
        time.sleep(0.02)
    assert process.poll() is None, "ended before it could be killed"
    process.kill()
    process.wait()
    done = tiny.run(again)
    assert done.returncode == 0, done.stderr
    assert "resumed at epoch" in done.stdout
    compare(tmp_path, alone["ptb"])


@pytest.mark.parametrize(("name", "layers"), [("ptb", 1), ("chorales", 2)])
def test_one_rank_by_nccl_is_one_process(name: str, layers: int, tmp_path: Path) -> None:
    """What ranks add to a step, over NCCL: DDP, the sums of gradients one by one, the sum of losses."""
    tiny.write_corpora(tmp_path)
    corpus, device = load(tmp_path / "prepared" / f"{name}.npz"), torch.device(DEVICE)
    replicas, settings = tiny.EVERY_METHOD, ModelSettings(40, layers, input_scale=0.5, dropout=0.4)
    stream = training_stream(corpus, [r.seed for r in replicas], 1, 6, 10, device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        by_nccl = Engine(corpus, settings, replicas, 6, device, OneOfOne())
        alone = Engine(corpus, settings, replicas, 6, device)
        by_nccl.captured = alone.captured = None
        assert by_nccl.descent.network is not by_nccl.model
        for index in range(8):
            chunk = stream.chunk(index)
            for a, b in zip(by_nccl.step(chunk), alone.step(chunk), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=0)
        for a, b in zip(by_nccl.model.parameters(), alone.model.parameters(), strict=True):
            assert (a - b).norm() <= 1e-3 * b.norm()
    finally:
        dist.destroy_process_group()


class OneOfOne(Ranks):
    """The only rank of a job, which does all that one of several does."""

    def parallel(self, model: torch.nn.Module) -> torch.nn.Module:
        return Ranks(0, 2).parallel(model)

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(tensor)
        return tensor
