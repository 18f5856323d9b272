"""Streams: every step occurs once, padding is small and weightless, tunes start from silence and a zero state."""

import numpy as np
import pytest
import torch

import tiny
from spectralgru.errors import InputError
from spectralgru.training.batches import evaluation_stream, training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.distributed import Ranks
from spectralgru.training.engine import Engine
from spectralgru.training.settings import ModelSettings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    tiny.write_corpora(data)
    return {name: load(data / "prepared" / f"{name}.npz") for name in ("ptb", "chorales")}


@pytest.mark.parametrize("name", ["ptb", "chorales"])
@pytest.mark.parametrize(("lanes", "steps"), [(6, 10), (20, 35), (1, 7), (7, 1)])
def test_every_step_counts_once(corpora, name, lanes, steps):
    corpus = corpora[name]
    expected = len(corpus.train) - (name == "ptb")
    stream = training_stream(corpus, [0, 1], 3, lanes, steps, CPU)
    chunks = [stream.chunk(i) for i in range(len(stream))]
    assert sum(c.count for c in chunks) == sum(float(c.weights.sum()) for c in chunks) == expected
    counted = torch.cat([c.targets[..., :][c.weights[0].bool()] for c in chunks]) if name == "ptb" else None
    if name == "ptb":
        assert sorted(counted.tolist()) == sorted(corpus.train[1:].tolist())
    else:
        for r in range(2):
            notes = torch.cat([c.targets[r][c.weights[0].bool()] for c in chunks])
            assert notes.sum() == corpus.train.sum()
            starts = sum(int((c.starts[r] & c.weights[0].bool()).sum()) for c in chunks)
            assert starts == len(corpus.train_lengths)


def test_lanes_read_on_where_they_stopped(corpora):
    tokens = corpora["ptb"].train
    stream = training_stream(corpora["ptb"], [0], 1, 6, 10, CPU)
    inputs = torch.cat([stream.chunk(i).inputs for i in range(len(stream))])
    targets = torch.cat([stream.chunk(i).targets for i in range(len(stream))])
    weights = torch.cat([stream.chunk(i).weights[0] for i in range(len(stream))]).bool()
    read = torch.cat([inputs[:, lane][weights[:, lane]] for lane in range(6)]).numpy()
    assert (read == tokens[:-1]).all()
    for lane in range(6):
        inside = weights[:, lane]
        assert (targets[:, lane][inside][:-1] == inputs[:, lane][inside][1:]).all()


def test_tunes_begin_in_silence_and_in_an_order_of_the_seed_alone(corpora):
    corpus = corpora["chorales"]
    streams = {
        seeds: training_stream(corpus, seeds, 2, 6, 10, CPU).chunk(0) for seeds in [(0, 1), (1, 0), (1,)]
    }
    both, swapped, alone = streams.values()
    assert torch.equal(both.inputs[1], alone.inputs[0])
    assert torch.equal(both.inputs[1], swapped.inputs[0])
    assert not torch.equal(both.inputs[0], both.inputs[1])
    assert (both.inputs[both.starts] == 0).all()
    three = training_stream(corpus, (1, 0, 1), 2, 6, 10, CPU)
    assert len(three.positions) == 2  # an order a seed, however many runs read it
    assert torch.equal(three.chunk(0).inputs, both.inputs[[1, 0, 1]])
    other_epoch = training_stream(corpus, (0, 1), 3, 6, 10, CPU).chunk(0)
    assert not torch.equal(both.inputs, other_epoch.inputs)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_evaluation_reads_every_tune_whole(corpora, split):
    corpus = corpora["chorales"]
    stream = evaluation_stream(corpus, split, 3, 10, CPU)
    chunks = [stream.chunk(i) for i in range(len(stream))]
    targets = torch.cat([c.targets[0] for c in chunks])
    starts = torch.cat([c.starts[0] for c in chunks])
    weights = torch.cat([c.weights[0] for c in chunks]).bool()
    found = []
    for lane in range(3):
        notes, begins = targets[:, lane][weights[:, lane]], starts[:, lane][weights[:, lane]]
        found += list(torch.tensor_split(notes, torch.nonzero(begins).flatten()[1:].tolist()))
    expected = sorted(tune.astype(float).tobytes() for tune in corpus.tunes(split))
    assert sorted(tune.double().numpy().tobytes() for tune in found) == expected


def test_padding_is_small_on_a_corpus_of_realistic_lengths(corpora):
    rng = np.random.default_rng(0)
    lengths = np.maximum(rng.lognormal(5.3, 0.5, 300), 4).astype(np.int32)
    corpus = type(corpora["chorales"])(
        "chorales", "", *[rng.integers(0, 2, (lengths.sum(), 5)).astype(np.uint8)] * 3, *[lengths] * 3, 0
    )
    for stream in (
        training_stream(corpus, [0], 1, 20, 35, CPU),
        evaluation_stream(corpus, "valid", 20, 35, CPU),
    ):
        padded = 1 - stream.counts.sum() / (len(stream) * 35 * 20)
        assert padded < 0.15


@pytest.mark.parametrize("name", ["ptb", "chorales"])
def test_padding_enters_neither_gradient_nor_other_lanes(corpora, name):
    """Whatever stands where the weight is zero: same loss, same weights after a step."""
    corpus = corpora[name]
    settings = ModelSettings(8, 1, input_scale=1.0, dropout=0.0)
    stream = training_stream(corpus, [0], 1, 7, 10, CPU)
    last = stream.chunk(len(stream) - 1)
    padding = last.weights[0] == 0
    assert padding.any()
    results = []
    for change in (False, True):
        if change:
            (last.inputs if name == "ptb" else last.inputs[0])[padding] = 1
            (last.targets if name == "ptb" else last.targets[0])[padding] = 0
        engine = Engine(corpus, settings, [tiny.replica(rate=0.5)], 7, CPU)
        loss, norm = engine.step(last)
        results.append((loss, norm, engine.model.weights_of(0)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    for key, value in results[0][2].items():
        assert (results[1][2][key] == value).all()


@pytest.mark.parametrize(("lanes", "world"), [(20, 1), (20, 2), (20, 3), (7, 7), (5, 3)])
def test_ranks_share_the_lanes_evenly(lanes, world):
    parts = [Ranks(rank, world).share(lanes) for rank in range(world)]
    assert [lane for part in parts for lane in range(part.start, part.stop)] == list(range(lanes))
    sizes = {part.stop - part.start for part in parts}
    assert max(sizes) - min(sizes) <= 1


def test_more_ranks_than_lanes_are_refused():
    with pytest.raises(InputError, match="3 processes cannot share a batch of 2"):
        Ranks(0, 3).share(2)
