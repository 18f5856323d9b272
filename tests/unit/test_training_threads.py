"""At sizes where PyTorch divides its operations among threads: a run's bits depend neither on them nor on company."""

import pytest
import torch

from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.engine import Engine
from spectralgru.training.settings import ModelSettings, Replica

LANES, STEPS = 20, 35
SETTINGS = [("clipping", 1.0), ("constraint", 0.2), ("constraint", 1.4)]


@pytest.fixture(autouse=True)
def _threads():
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(("method", "value"), SETTINGS)
@pytest.mark.parametrize("name", ["ptb", "chorales"])
def test_neither_threads_nor_company_change_a_bit(request, name, method, value):
    corpus = load(request.getfixturevalue(name))
    words = name == "ptb"
    model = ModelSettings(hidden_size=200, num_layers=1 if words else 2, dropout=0.3)
    first, other = (Replica(*each, 1.0 if words else 0.1) for each in ((method, value, 0), ("none", None, 1)))

    def trained(threads, replicas):
        torch.set_num_threads(threads)
        engine = Engine(corpus, model, replicas, LANES, torch.device("cpu"))
        seeds = [replica.seed for replica in replicas]
        stream = training_stream(corpus, seeds, 1, LANES, STEPS, torch.device("cpu"))
        reported = [engine.step(stream.chunk(step)) for step in range(4)]
        return [loss[0] for pair in reported for loss in pair] + list(engine.model.weights_of(0).values())

    alone = trained(1, [first])
    for threads, replicas in ((2, [first]), (3, [first, other])):
        for want, found in zip(alone, trained(threads, replicas), strict=True):
            assert torch.equal(want, found)
