"""At sizes where PyTorch divides its operations among threads: a run's bits depend neither on them nor on company."""

import numpy as np
import pytest
import torch

from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import Notes, Words
from spectralgru.training.engine import Engine
from spectralgru.training.settings import ModelSettings, Replica

LANES, STEPS = 20, 35
SETTINGS = [("clipping", 1.0), ("constraint", 0.2), ("constraint", 1.4)]


def words():
    ids = np.random.default_rng(0).integers(0, 1000, 6000).astype(np.int32)
    return Words("words", "0", ids, ids, ids, [str(i) for i in range(1000)])


def notes():
    rng = np.random.default_rng(0)
    lengths = rng.integers(40, 200, 60).astype(np.int32)
    rolls = (rng.random((int(lengths.sum()), 93)) < 0.05).astype(np.uint8)
    return Notes("notes", "0", rolls, rolls, rolls, lengths, lengths, lengths, 0)


@pytest.fixture(autouse=True)
def _threads():
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(("method", "value"), SETTINGS)
@pytest.mark.parametrize("corpus", [words(), notes()], ids=["words", "notes"])
def test_neither_threads_nor_company_change_a_bit(corpus, method, value):
    model = ModelSettings(hidden_size=200, num_layers=1 if corpus.kind == "words" else 2, dropout=0.3)
    rate = 1.0 if corpus.kind == "words" else 0.1
    first, other = (Replica(*each, rate) for each in ((method, value, 0), ("none", None, 1)))

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
