"""The engine with a GPU's projection, run on a CPU, against the engine with the CPU's own."""

import pytest
import torch

import tiny
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.engine import Engine
from spectralgru.training.settings import ModelSettings

CPU = torch.device("cpu")
REPLICAS = (
    tiny.replica("constraint", 0.2, 0, 0.3),
    tiny.replica("clipping", 0.5, 1, 0.3),
    tiny.replica("constraint", 1.4, 3, 0.3),
    tiny.replica("constraint", 1.0, 4, 0.5),
)


@pytest.mark.parametrize(("name", "layers"), [("ptb", 1), ("chorales", 2)])
def test_batched_projection_trains_the_same(name, layers, tmp_path):
    tiny.write_corpora(tmp_path)
    corpus = load(tmp_path / "prepared" / f"{name}.npz")
    settings = ModelSettings(40, layers, input_scale=0.5, dropout=0.3)
    plain, other = (Engine(corpus, settings, REPLICAS, 6, CPU) for _ in range(2))
    tiny.batched(other)
    stream = training_stream(corpus, [r.seed for r in REPLICAS], 1, 6, 10, CPU)

    def compare(steps: range) -> None:
        for index in steps:
            chunk = stream.chunk(index)
            for a, b in zip(plain.step(chunk), other.step(chunk), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(
                plain.projector.sigma_max, other.projector.sigma_max, rtol=2e-2, atol=0
            )
            for layer in range(layers):
                a, b = plain.model.recurrent(layer), other.model.recurrent(layer)
                assert (a - b).norm() <= 1e-3 * a.norm()

    compare(range(4))
    assert other.projector.projected.gt(0).tolist() == [bool(p) for p in plain.projector.projected]
    steps = [engine.projector.projected + engine.projector.skipped for engine in (plain, other)]
    assert torch.equal(*steps)
    restored = tiny.batched(Engine(corpus, settings, REPLICAS, 6, CPU))
    restored.load_state_dict(other.state_dict())
    again = [engine.step(stream.chunk(4)) for engine in (other, restored)]
    assert torch.equal(again[0][0], again[1][0])
    plain.step(stream.chunk(4))
    for engine in (plain, other):
        engine.keep([3, 0])
    stream = training_stream(corpus, [REPLICAS[r].seed for r in (3, 0)], 1, 6, 10, CPU)
    compare(range(5, 7))


def test_trace_rows_hold_the_maxima_of_their_interval():
    from spectralgru.training.trace import Trace

    trace = Trace(3, 2, 10, CPU)
    trace.add(torch.tensor([1.0, 5.0, 2.0]), torch.tensor([0.5, 0.6, 0.7]))
    trace.add(torch.tensor([3.0, 4.0, 1.0]), torch.tensor([0.4, 0.7, 0.6]))
    trace.close(2, 1, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([-0.1, 0.0, 0.1]), [0, 1])
    assert [r["grad_norm"] for r in trace.rows[0] + trace.rows[1]] == [3.0, 5.0]
    assert trace.rows[2] == []
    assert trace.grad_norm.tolist() == [0.0, 0.0, 2.0]
    assert trace.rows[1][0] == {
        "step": 2,
        "epoch": 1,
        "grad_norm": 5.0,
        "sigma_max": pytest.approx(0.7),
        "spectral_radius": pytest.approx(0.8),
        "growth": 0.0,
    }
