"""Each baseline keeps its own promise over real training steps, and leaves records like any other run."""

import csv
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from spectralgru.pipeline.experiments.plain_loop.adaptive_clipping import AutoClip, ZClip
from spectralgru.pipeline.experiments.plain_loop.flossing import (
    EVERY,
    EXPONENTS,
    LANES,
    Flossing,
    exponents,
)
from spectralgru.pipeline.experiments.plain_loop.job import PlainJob
from spectralgru.pipeline.experiments.plain_loop.loop import PlainModel, gradient_norm, step
from spectralgru.pipeline.experiments.plain_loop.rules import OPTIMIZERS, RULES
from spectralgru.pipeline.experiments.plain_loop.training import train
from spectralgru.pipeline.results.load import load_runs
from spectralgru.records import Run
from spectralgru.setting import Method, Setting
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import Corpus, load
from spectralgru.training.settings import Replica

CPU = torch.device("cpu")
STEPS = 12


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    folder = tmp_path_factory.mktemp("corpora")
    tiny.write_corpora(folder)
    return {name: load(folder / f"prepared/{name}.npz") for name in ("ptb", "chorales")}


def stepped(
    corpus: Corpus,
    method: str,
    value: float,
    cell: str = "GRU",
    optimizer: str = "SGD",
    rate: float = 1.0,
    **more: float,
) -> tuple[PlainModel, list[list[torch.Tensor]]]:
    """A model after STEPS training steps, and its candidates [H, H] by step and layer."""
    settings, training = tiny.job(corpus.name).model, tiny.job(corpus.name).training
    torch.manual_seed(0)
    model = PlainModel(corpus, settings, 0, cell)
    rule = RULES[method](model, value, **more)
    chosen = OPTIMIZERS[optimizer](model.parameters(), lr=rate)
    stream = training_stream(corpus, [0], 1, training.batch_size, training.bptt_steps, CPU)
    state, seen = model.initial_state(training.batch_size), []
    for index in range(STEPS):
        *_, state = step(model, chosen, rule, stream.chunk(index), state)
        model.eval()
        model.compute_weights()
        model.train()
        seen.append([model.recurrent(layer).double().clone() for layer in range(model.num_layers)])
    return model, seen


def sigma(weight: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight, 2))


@pytest.mark.parametrize("name", ["ptb", "chorales"])
@pytest.mark.parametrize(("cell", "optimizer", "rate"), [
    ("GRU", "SGD", 1.0), ("paper", "SGD", 1.0), ("LSTM", "SGD", 1.0), ("GRU", "Adam", 0.05),
])  # fmt: skip
def test_the_constraint_bounds_every_cell_under_every_optimizer(
    corpora: dict[str, Corpus], name: str, cell: str, optimizer: str, rate: float
) -> None:
    _, seen = stepped(corpora[name], "constraint", 0.9, cell, optimizer, rate)
    _, free = stepped(corpora[name], "none", 0.0, cell, optimizer, rate)
    assert max(sigma(w) for w in free[-1]) > 1.1  # the bound is needed
    assert all(sigma(w) <= 1.1 * (1 + 1e-6) for weights in seen for w in weights)
    assert max(sigma(w) for w in seen[-1]) == pytest.approx(1.1, rel=1e-4)  # and reached


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_spectral_norm_keeps_sigma_at_its_bound(corpora: dict[str, Corpus], cell: str) -> None:
    _, seen = stepped(corpora["chorales"], "spectral_norm", 0.5, cell, rate=0.01)
    for weights in seen:
        for weight in weights:
            # Divided by an estimate of sigma_1, from below, by power iteration.
            assert 1.5 * (1 - 1e-4) <= sigma(weight) <= 1.5 * 1.05
    assert not torch.allclose(seen[0][0], seen[-1][0], atol=1e-3)


def test_spectral_norm_scales_where_the_constraint_clips(corpora: dict[str, Corpus]) -> None:
    _, scaled = stepped(corpora["ptb"], "spectral_norm", 0.2, rate=1e-6)
    _, clipped = stepped(corpora["ptb"], "constraint", 0.2, rate=1e-6)
    assert torch.linalg.svdvals(scaled[-1][0]).tolist() == pytest.approx([1.8] * 12, rel=1e-3)
    assert torch.linalg.svdvals(clipped[-1][0]).tolist() == pytest.approx([1.0] * 12, rel=1e-3)


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_orthogonal_weights_stay_orthogonal(corpora: dict[str, Corpus], cell: str) -> None:
    _, seen = stepped(corpora["chorales"], "orthogonal", 0.0, cell)
    for weights in seen:
        for weight in weights:
            assert torch.allclose(weight.T @ weight, torch.eye(12, dtype=torch.float64), atol=1e-5)
    assert not torch.allclose(seen[0][0], seen[-1][0], atol=1e-3)


def test_weight_decay_acts_on_the_candidate_alone(corpora: dict[str, Corpus]) -> None:
    strength, rate = 0.3, 1e-4  # so small a rate that gradients are the same in both
    decayed, seen = stepped(corpora["ptb"], "weight_decay", strength, rate=rate)
    free, without = stepped(corpora["ptb"], "none", 0.0, rate=rate)
    expected = without[-1][0] * (1 - rate * strength) ** STEPS
    assert torch.allclose(seen[-1][0], expected, atol=2e-6)
    assert not torch.allclose(seen[-1][0], without[-1][0], atol=2e-5)
    assert torch.allclose(decayed.weight_hh(0)[:24], free.weight_hh(0)[:24], atol=2e-6)


def test_a_strong_decay_shrinks(corpora: dict[str, Corpus]) -> None:
    _, seen = stepped(corpora["ptb"], "weight_decay", 0.5, rate=0.3)
    assert sigma(seen[-1][0]) < 0.5 < sigma(stepped(corpora["ptb"], "none", 0.0, rate=0.3)[1][-1][0])


def test_autoclip_keeps_the_percentile_of_all_norms() -> None:
    clip, norms = AutoClip(10), [float(n) for n in np.random.default_rng(0).lognormal(size=200)]
    for count, norm in enumerate(norms, 1):
        assert clip(norm) == pytest.approx(np.percentile(norms[:count], 10))
    assert clip(math.inf) == pytest.approx(np.percentile(norms, 10))  # counts for nothing


def test_zclip_cuts_an_outlier_below_its_score_and_lets_the_rest_pass() -> None:
    first = [9.0, 11.0] * 12 + [10.0]
    mean, deviation = np.mean(first), np.std(first)
    clip = ZClip(2.5)
    assert {clip(norm) for norm in first} == {math.inf}
    ordinary, far = mean + 2.4 * deviation, mean + 25 * deviation
    assert clip(ordinary) == math.inf
    once = ZClip(2.5)
    for norm in first:
        once(norm)
    kept = once(far)
    assert kept == pytest.approx(mean + 2.5**2 / 25 * deviation)
    # What was kept, not what came, is remembered: the same outlier is cut again.
    assert once(far) == pytest.approx(kept, rel=0.05)


def test_adaptive_clipping_shortens_the_gradient_that_the_optimizer_sees(corpora: dict[str, Corpus]) -> None:
    settings, training = tiny.job("ptb").model, tiny.job("ptb").training
    model = PlainModel(corpora["ptb"], settings, 0)
    optimizer = OPTIMIZERS["SGD"](model.parameters(), lr=1.0)
    rule = RULES["autoclip"](model, 0.0)  # the smallest norm so far
    stream = training_stream(corpora["ptb"], [0], 1, training.batch_size, training.bptt_steps, CPU)
    state, norms, kept = model.initial_state(training.batch_size), [], []
    for index in range(4):
        _, norm, state = step(model, optimizer, rule, stream.chunk(index), state)
        norms.append(float(norm))
        kept.append(float(gradient_norm(model)))
    assert kept == pytest.approx([min(norms[: i + 1]) for i in range(4)], rel=1e-5)
    assert kept[-1] < 0.99 * max(norms)


def test_bounded_gates_stay_bounded(corpora: dict[str, Corpus]) -> None:
    model, _ = stepped(corpora["ptb"], "constraint", 0.9, gates=0.7)
    gates = [sigma(model.weight_hh(0).detach()[rows].double()) for rows in (slice(0, 12), slice(12, 24))]
    assert max(gates) == pytest.approx(0.7, rel=1e-4)
    free, _ = stepped(corpora["ptb"], "constraint", 0.9)
    assert sigma(free.weight_hh(0).detach()[:12].double()) > 0.8


@pytest.mark.parametrize(("name", "cell"), [("ptb", "GRU"), ("chorales", "LSTM"), ("chorales", "paper")])
def test_flossing_moves_exponents_towards_zero(corpora: dict[str, Corpus], name: str, cell: str) -> None:
    corpus, settings = corpora[name], replace(tiny.job(name).model, num_layers=2)
    training = tiny.job(name).training
    model = PlainModel(corpus, settings, 0, cell)
    chunk = training_stream(corpus, [0], 1, training.batch_size, training.bptt_steps, CPU).chunk(0)
    state = model.initial_state(training.batch_size)
    floss = Flossing(model, 1.0)
    optimizer = OPTIMIZERS["Adam"](model.parameters(), lr=0.01)
    found = exponents(model, chunk, state).detach()
    assert found.shape == (2, min(LANES, training.batch_size), EXPONENTS)
    assert floss(chunk, state).item() == pytest.approx(found.square().mean().item())  # type: ignore[union-attr]
    assert [floss(chunk, state) for _ in range(EVERY - 1)] == [0.0] * (EVERY - 1)
    for _ in range(10):
        optimizer.zero_grad()
        exponents(model, chunk, state).square().mean().backward()
        optimizer.step()
    assert exponents(model, chunk, state).square().mean() < 0.8 * found.square().mean()


def plain_job(corpus: str, **more: object) -> PlainJob:
    job = tiny.job(corpus)
    return PlainJob(**{field: getattr(job, field) for field in asdict(job)}, **more)  # type: ignore[arg-type]


def trained(
    corpus: Corpus, root: Path, method: Method, value: float | None, rate: float, **more: object
) -> Run:
    return train(plain_job(corpus.name, **more), Replica(method, value, 0, rate), corpus, root)


@pytest.mark.parametrize(("corpus", "method", "value", "more"), [
    ("ptb", "constraint", 0.2, {}), ("chorales", "clipping", 1.0, {"cell": "LSTM"}),
    ("ptb", "spectral_norm", 0.2, {}), ("ptb", "orthogonal", None, {"cell": "LSTM"}),
    ("ptb", "weight_decay", 0.01, {"optimizer": "Adam"}), ("ptb", "constraint", 0.3, {"gates": 1.5}),
    ("ptb", "flossing", 10.0, {}), ("ptb", "zclip", 2.5, {}),
])  # fmt: skip
def test_records_are_read_like_the_engines(
    corpora: dict[str, Corpus], tmp_path: Path, corpus: str, method: Method, value: float | None, more: dict
) -> None:
    rate = 0.01 if more.get("optimizer") else 0.3 if corpus == "ptb" else 0.05
    run = trained(corpora[corpus], tmp_path, method, value, rate, **more)
    setting = Setting(method, value)
    (item,) = load_runs(tmp_path, corpus, [setting], [0], "quick")[setting]
    assert item.run == run
    assert run.settings["cell"] == more.get("cell", "GRU")
    assert run.settings["learning_rate"] == rate
    assert item.history["valid_loss"].min() == pytest.approx(run.best["valid_loss"])
    assert len(item.history) == 3
    assert item.steps["grad_norm"].max() == pytest.approx(item.history["grad_norm_max"].max())
    assert item.steps["sigma_max"].iloc[-1] == pytest.approx(item.history["sigma_max"].iloc[-1], rel=1e-5)
    if corpus == "ptb":
        assert run.status == "finished"
        assert run.best["test"] == pytest.approx(math.exp(run.best["test_loss"]))
    before = (item.directory / "run.json").stat().st_mtime_ns
    trained(corpora[corpus], tmp_path, method, value, rate, **more)
    assert (item.directory / "run.json").stat().st_mtime_ns == before  # finished: left alone


def test_a_run_that_diverges_is_recorded_as_such(corpora: dict[str, Corpus], tmp_path: Path) -> None:
    run = trained(corpora["ptb"], tmp_path, "none", None, 1e30)
    assert run.status == "diverged"
    assert run.diverged is not None
    assert run.diverged["epoch"] == 1
    assert 1 <= run.diverged["step"] <= 4
    assert "not finite" in run.diverged["reason"]
    with (tmp_path / "runs/ptb/none/seed-0/steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["step"]) == run.diverged["step"]


@pytest.mark.parametrize("more", [{"rate": 1e-6}, {"rate": 1e6, "optimizer": "Adam"}])
def test_a_run_no_better_than_frequencies_has_diverged(
    corpora: dict[str, Corpus], tmp_path: Path, more: dict
) -> None:
    run = trained(corpora["ptb"], tmp_path, "clipping", 1.0, **more)
    assert run.status == "diverged"
    assert run.diverged is not None
    assert "no better than" in run.diverged["reason"]


def test_the_same_seed_gives_the_same_weights(corpora: dict[str, Corpus], tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    found = []
    for folder in ("a", "b"):
        trained(corpora["ptb"], tmp_path / folder, "orthogonal", None, 0.3)
        found.append(load_file(tmp_path / folder / "runs/ptb/orthogonal/seed-0/model.safetensors"))
    assert found[0].keys() == {
        "input.weight", "gru.weight_ih_l0", "gru.weight_hh_l0", "output.weight", "output.bias"
    }  # fmt: skip
    for name, value in found[0].items():
        assert np.array_equal(value, found[1][name])
