"""The growth column: what it is, that measuring it changes nothing, that it does not depend on other replicas."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from spectralgru.diagnosis.cells import Cell
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.engine import Engine
from spectralgru.training.train import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("growth") / "data"
    tiny.write_corpora(folder)
    return folder / "prepared"


def trained(job, data: Path, folder: Path) -> Path:
    train(job, data / f"{job.corpus}.npz", folder / "results", folder / "checkpoints", say=lambda line: None)
    return folder / "results" / "runs" / job.corpus


def column(run: Path, name: str) -> list[str]:
    with (run / "steps.csv").open() as file:
        return [row[name] for row in csv.DictReader(file)]


@pytest.mark.parametrize("corpus", ["ptb", "chorales"])
def test_growth_is_that_of_a_gradient_through_the_batch(data: Path, corpus: str):
    """Against the product of Jacobians by autograd, in float64; two layers for music."""
    job = tiny.job(corpus, tiny.EVERY_METHOD)
    loaded = load(data / f"{corpus}.npz")
    engine = Engine(loaded, job.model, job.replicas, 6, CPU)
    stream = training_stream(loaded, [r.seed for r in job.replicas], 1, 6, 10, CPU)
    for index in range(4):
        engine.step(stream.chunk(index))
    chunk, state = stream.chunk(3), engine.entered.double()
    found = engine.growth(chunk)
    inputs = engine.model.embedded(chunk.inputs).detach().double()
    model = engine.model.double()
    assert (found > -2).all()
    for run in range(len(job.replicas)):
        x, largest = inputs[run], []
        for layer in range(model.num_layers):
            w_ih, w_hh = (weight[run].detach() for weight in model.gru.layer_weights(layer))
            cell = Cell("GRU, reset before", w_ih, w_hh)
            start = torch.linalg.qr(
                torch.randn(1, 12, generator=torch.Generator().manual_seed(0)).mT.double()
            )[0]
            h, states, entering = state[run, layer], [], []
            for t in range(10):
                if chunk.starts is not None:
                    h = h.masked_fill(chunk.starts[run if len(chunk.starts) > 1 else 0, t, :, None], 0)
                entering.append(h)
                h = cell.step(cell.project(x)[t], h)
                states.append(h)
            for lane in range(6):
                direction = start[:, 0]
                for t in reversed(range(10)):
                    jacobian = torch.autograd.functional.jacobian(
                        lambda s, t=t: cell.step(cell.project(x)[t, lane : lane + 1], s[None])[0],  # noqa: B023
                        entering[t][lane],
                    )
                    direction = jacobian.mT @ direction
                largest.append(direction.norm().log() / 10)
            x = torch.stack(states)
        assert found[run].item() == pytest.approx(max(largest).item(), abs=1e-4)


def test_tracing_changes_no_training_and_company_no_growth(data: Path, tmp_path: Path):
    job = tiny.job("chorales", tiny.EVERY_METHOD, epochs=2, trace_every=3)
    together = trained(job, data, tmp_path / "together")
    alone = trained(replace(job, replicas=job.replicas[2:3]), data, tmp_path / "alone")
    rarely = trained(
        replace(job, training=replace(job.training, trace_every=1000)), data, tmp_path / "rarely"
    )
    for run in together.glob("*/seed-*"):
        name = run.relative_to(together)
        growths = column(run, "growth")
        assert len(growths) > 5
        assert len(set(growths)) > 5
        if (alone / name).exists():
            assert (alone / name / "steps.csv").read_bytes() == (run / "steps.csv").read_bytes()
        assert column(rarely / name, "growth") == growths[-1:]  # the last interval ends with the run
        record, other = (json.loads((r / "run.json").read_text()) for r in (run, rarely / name))
        assert record["files"]["model.safetensors"] == other["files"]["model.safetensors"]
        assert record["best"] == other["best"]
    assert list(alone.glob("*/seed-*"))
