"""Units that a GPU's engine adds inside, on a CPU: nothing that leaves the engine shows them."""

import pytest
import torch

import tiny
from spectralgru.training import engine as engine_module
from spectralgru.training.batches import evaluation_stream, training_stream
from spectralgru.training.checkpoint import of_run, of_runs
from spectralgru.training.data.dataset import load
from spectralgru.training.engine import Engine
from spectralgru.training.evaluate import evaluate
from spectralgru.training.settings import ModelSettings

CPU = torch.device("cpu")
LANES, STEPS, UNITS = 6, 10, 13
REPLICAS = tiny.EVERY_METHOD


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.fixture(params=[("ptb", 1), ("chorales", 2)], ids=["words", "notes"])
def case(request, tmp_path, monkeypatch):
    name, layers = request.param
    tiny.write_corpora(tmp_path)
    corpus = load(tmp_path / "prepared" / f"{name}.npz")

    def made(multiple, replicas=REPLICAS):
        monkeypatch.setitem(engine_module.MULTIPLE, "cpu", multiple)
        settings = ModelSettings(UNITS, layers, input_scale=0.5, dropout=0.3)
        return tiny.batched(Engine(corpus, settings, replicas, LANES, CPU, gates=0.9))

    def chunks(replicas=REPLICAS):
        stream = training_stream(corpus, [r.seed for r in replicas], 1, LANES, STEPS, CPU)
        return [stream.chunk(i) for i in range(5)]

    return made, chunks, evaluation_stream(corpus, "valid", LANES, STEPS, CPU)


def added(engine):
    """All numbers of the added units."""
    hidden = engine.model.hidden_size
    parts = [engine.state[..., hidden:], engine.entered[..., hidden:]]
    for name, weight in engine.model.named_parameters():
        if name.startswith("gru."):
            parts.append(weight.unflatten(1, (3, -1))[:, :, hidden:])
        if name != "output.bias":
            parts.append(weight[..., hidden:])
    return torch.cat([part.flatten() for part in parts])


def compare(padded, plain, chunks, valid):
    for chunk in chunks:
        for a, b in zip(padded.step(chunk), plain.step(chunk), strict=True):
            close(a, b)
        close(padded.projector.sigma_max, plain.projector.sigma_max)
        assert torch.equal(padded.projector.saturated, plain.projector.saturated)
    assert not added(padded).any()
    close(padded.spectral_radius(), plain.spectral_radius())
    close(torch.tensor(padded.singular_values()), torch.tensor(plain.singular_values()))
    close(padded.growth(chunks[-1]), plain.growth(chunks[-1]))
    close(evaluate(padded.model, valid), evaluate(plain.model, valid))
    own, theirs = ([e.model.weights_of(i) for i in range(len(e.replicas))] for e in (padded, plain))
    for a, b in zip(own, theirs, strict=True):
        assert {n: w.shape for n, w in a.items()} == {n: w.shape for n, w in b.items()}
        for name, weight in a.items():
            assert weight.is_contiguous()
            close(weight, b[name])
    close(evaluate(padded.model.with_weights(own), valid), evaluate(plain.model, valid))


def test_added_units_stay_zero_and_show_nowhere(case):
    made, chunks, valid = case
    padded, plain = made(8), made(1)
    assert padded.model.gru.hidden_size == 16
    assert len(added(padded))
    compare(padded, plain, chunks(), valid)
    for engine in (padded, plain):
        engine.keep([3, 0])
    compare(padded, plain, chunks((REPLICAS[3], REPLICAS[0])), valid)


def test_a_checkpoint_continues_with_or_without_added_units(case):
    made, chunks, valid = case
    first, *rest = chunks()
    for one, other in ((8, 1), (1, 8)):
        saved, restored = made(one), made(other)
        saved.step(first)
        state = saved.state_dict()
        restored.load_state_dict(of_runs([of_run(state, run) for run in range(len(REPLICAS))]))
        compare(*((saved, restored) if one == 8 else (restored, saved)), rest, valid)


def test_a_run_that_diverges_disturbs_no_other(case):
    made, chunks, _ = case
    wild = tiny.replica("none", None, 2, 1e30)
    engine, calm = made(8, (*REPLICAS[:2], wild, REPLICAS[3])), made(8)
    for chunk in chunks():
        loss, _ = engine.step(chunk)
        calm.step(chunk)
    assert not loss[2].isfinite()
    for i in (0, 1, 3):
        for name, weight in calm.model.weights_of(i).items():
            assert torch.equal(engine.model.weights_of(i)[name], weight)
