"""A GPU's captured step, without a GPU: a CUDA graph's use of memory is imitated with a CPU's operations.

A graph reads and writes the tensors that it was captured with for ever after, whatever Python's names have come to
mean, and no decision of the host is in it. What only a GPU shows (streams, speed) is tested in `tests/gpu`.
"""

import gc
import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import tiny
from spectralgru.training.batches import Chunk, training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.engine import Engine
from spectralgru.training.graph import WARM_UP, CapturedStep
from spectralgru.training.settings import ModelSettings

CPU = torch.device("cpu")
LANES, STEPS = 6, 10
REPLICAS = tiny.EVERY_METHOD


class Graph(TorchDispatchMode):
    """Operations written down while it is entered, and what they changed put back: a capture computes nothing."""

    def __init__(self):
        super().__init__()
        self.calls, self.before = [], {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if operation in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise RuntimeError(f"{operation} waits for the device: not allowed in a capture")
        named = zip(operation._schema.arguments, args, strict=False)
        written = [value for argument, value in named if argument.alias_info and argument.alias_info.is_write]
        for storage in [t.untyped_storage() for t in tree_leaves(written) if isinstance(t, torch.Tensor)]:
            self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        result = operation(*args, **kwargs)
        call = operation, args, kwargs, result
        self.calls.append(tree_map_only(torch.Tensor, torch.Tensor.detach, call))
        return result

    def __exit__(self, *exception):
        super().__exit__(*exception)
        for storage, content in self.before.values():
            storage.copy_(content)

    @torch.no_grad()
    def replay(self):
        for operation, args, kwargs, result in self.calls:
            again = operation(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    torch.set_num_threads(1)
    stream = SimpleNamespace(device=CPU, wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: graph)


def engine(corpus, layers, capture):
    made = Engine(corpus, ModelSettings(40, layers, input_scale=0.5, dropout=0.0), REPLICAS, LANES, CPU)
    tiny.batched(made)
    made.fused = capture
    made._restart()
    return made


@pytest.mark.parametrize(("name", "layers"), [("ptb", 1), ("chorales", 2)])
def test_a_captured_step_is_the_step(name, layers, tmp_path):
    tiny.write_corpora(tmp_path)
    corpus = load(tmp_path / "prepared" / f"{name}.npz")
    graph, plain = (engine(corpus, layers, capture) for capture in (True, False))

    def chunks(replicas, steps=STEPS):
        stream = training_stream(corpus, [r.seed for r in replicas], 1, LANES, steps, CPU)
        return [stream.chunk(i) for i in range(6)]

    def compare(parts):
        for chunk in parts:
            for a, b in zip(graph.step(chunk), plain.step(chunk), strict=True):
                assert torch.equal(a, b)
            for what in ("sigma_max", "saturated", "projected", "skipped"):
                assert torch.equal(getattr(graph.projector, what), getattr(plain.projector, what)), what
            assert torch.equal(graph.state, plain.state)
            for a, b in zip(graph.model.parameters(), plain.model.parameters(), strict=True):
                assert torch.equal(a, b)

    first = chunks(REPLICAS)
    compare(first[:4])
    assert graph.captured.graph is not None
    compare(chunks(REPLICAS, STEPS - 3)[:1])  # another shape, in between
    compare(first[4:])
    for one in (graph, plain):
        one.start_epoch()
        one.rate[0] = 0.1
    compare(first[:2])
    captured = graph.captured
    for one in (graph, plain):
        one.keep([3, 1])
    compare(chunks((REPLICAS[3], REPLICAS[1])))
    assert graph.captured is not captured
    assert graph.captured.graph is not None


def test_a_decision_of_the_host_cannot_be_captured():
    def advance(chunk):
        return chunk.inputs.sum() * float(chunk.inputs.max()), chunk.inputs

    stepper = SimpleNamespace(state=torch.zeros(1), advance=advance)
    step, chunk = CapturedStep(stepper, CPU), SimpleNamespace(inputs=torch.ones(3), targets=torch.ones(3))
    chunk.weights, chunk.starts, chunk.count = torch.ones(3), None, 3.0
    for _ in range(WARM_UP):
        step(chunk)
    with pytest.raises(RuntimeError, match="waits for the device"):
        step(chunk)


def test_no_graph_is_destroyed_while_another_is_captured(monkeypatch):
    """An engine and its graph refer to each other; Python's collector could find them at any time."""
    x = torch.zeros(1)

    def capture():
        stepper = SimpleNamespace(state=x.clone(), advance=lambda chunk: (x.clone(), x.clone()))
        stepper.captured = CapturedStep(stepper, CPU)
        for _ in range(WARM_UP + 1):
            stepper.captured(Chunk(x, x, x, None, 1))
        return stepper.captured.graph

    seen = []

    class Watched(Graph):
        def __enter__(self):
            seen.append((old() is None, gc.isenabled()))
            return super().__enter__()

    gc.disable()  # nothing but the capture itself collects
    try:
        old = weakref.ref(capture())
        assert old() is not None
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Watched)
        capture()
        assert not gc.isenabled()
        gc.enable()
        capture()
        assert gc.isenabled()
    finally:
        gc.enable()
    assert seen == [(True, False), (True, False)]
