"""The plain PyTorch loop computes what the engine computes."""

from dataclasses import replace

import pytest
import torch

import tiny
from spectralgru.pipeline.experiments.plain_loop import loop as plain
from spectralgru.training.batches import evaluation_stream, training_stream
from spectralgru.training.data.dataset import Corpus, load
from spectralgru.training.engine import Engine
from spectralgru.training.evaluate import evaluate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    folder = tmp_path_factory.mktemp("corpora")
    tiny.write_corpora(folder)
    return {name: load(folder / f"prepared/{name}.npz") for name in ("ptb", "chorales")}


@pytest.mark.parametrize("name", ["ptb", "chorales"])
@pytest.mark.parametrize("reset", ["before", "after"])
def test_losses_norms_and_evaluation_are_the_engines(
    corpora: dict[str, Corpus], name: str, reset: str
) -> None:
    """The paper's GRU and torch.nn.GRU, two layers, tunes that begin anywhere, clipping that bites."""
    corpus, job = corpora[name], tiny.job(name)
    settings = replace(job.model, dropout=0.0, num_layers=2)
    lanes, steps = job.training.batch_size, job.training.bptt_steps
    engine = Engine(corpus, settings, [tiny.replica("clipping", 1.5, 3, 0.2)], lanes, CPU)
    engine.model.gru.reset = reset
    model = plain.PlainModel(corpus, settings, seed=3, cell="paper" if reset == "before" else "GRU")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    rule, state = plain.Rule(threshold=1.5), model.initial_state(lanes)
    stream = training_stream(corpus, [3], 1, lanes, steps, CPU)
    clipped = 0
    for index in range(len(stream)):
        chunk = stream.chunk(index)
        expected, expected_norm = engine.step(chunk)
        loss, norm, state = plain.step(model, optimizer, rule, chunk, state)
        clipped += float(norm) > 1.5
        assert float(loss) == pytest.approx(float(expected), rel=2e-5)
        assert float(norm) == pytest.approx(float(expected_norm), rel=1e-3)
    assert clipped > 3
    valid = evaluation_stream(corpus, "valid", lanes, steps, CPU)
    assert plain.evaluate(model, valid) == pytest.approx(float(evaluate(engine.model, valid)), rel=2e-5)


def test_an_lstm_learns_in_the_same_loop(corpora: dict[str, Corpus]) -> None:
    corpus, job = corpora["ptb"], tiny.job("ptb")
    lanes, steps = job.training.batch_size, job.training.bptt_steps
    model = plain.PlainModel(corpus, job.model, seed=0, cell="LSTM")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    valid = evaluation_stream(corpus, "valid", lanes, steps, CPU)
    before = plain.evaluate(model, valid)
    torch.manual_seed(0)
    for epoch in (1, 2):
        stream, state = training_stream(corpus, [0], epoch, lanes, steps, CPU), model.initial_state(lanes)
        for index in range(len(stream)):
            _, _, state = plain.step(model, optimizer, plain.Rule(5.0), stream.chunk(index), state)
    assert plain.evaluate(model, valid) < 0.9 * before
