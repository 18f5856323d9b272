"""A whole training step as one CUDA graph, which the host launches once instead of a thousand kernels."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from spectralgru.training.batches import Chunk

# Steps before a new shape is captured; they compile kernels and fill the libraries' workspaces.
WARM_UP = 2


class Stepper(Protocol):
    """What is captured: `advance` reads and replaces `state`, and changes everything else in place."""

    state: Tensor

    @property
    def advance(self) -> Callable[[Chunk], tuple[Tensor, Tensor]]:
        """A training step: the loss and the gradient norm."""


class CapturedStep:
    """Calls `stepper.advance` until a shape has warmed up, then replays its graph; other shapes are called as before.

    Create a new one when the stepper's tensors are replaced. Warm-up and capture share a separate stream, as autograd
    requires.
    """

    def __init__(self, stepper: Stepper, device: torch.device) -> None:
        self.stepper = stepper
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.shapes: list[torch.Size | None] = []
        self.seen = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """Take one step; the results are copies."""
        tensors = _tensors(chunk)
        shapes = [None if t is None else t.shape for t in tensors]
        if self.graph is None:
            self.seen = self.seen + 1 if shapes == self.shapes else 1
            self.shapes = shapes
            if self.seen > WARM_UP:
                self._capture(chunk)
        if self.graph is None or shapes != self.shapes:
            return self._aside(chunk)
        for static, tensor in zip(self.inputs, tensors, strict=True):
            if static is not None and tensor is not None:
                static.copy_(tensor)
        if self.stepper.state is not self.state:
            self.state.copy_(self.stepper.state)
            self.stepper.state = self.state
        self.graph.replay()
        return self.loss.clone(), self.norm.clone()

    def _aside(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = self.stepper.advance(chunk)
        current.wait_stream(self.stream)
        return result

    def _capture(self, chunk: Chunk) -> None:
        self.inputs = [None if t is None else t.clone() for t in _tensors(chunk)]
        inputs, targets, weights, starts = self.inputs
        assert inputs is not None
        assert targets is not None
        assert weights is not None
        self.state = self.stepper.state = self.stepper.state.clone()
        graph = torch.cuda.CUDAGraph()
        with _no_collection(), torch.cuda.graph(graph, stream=self.stream):
            self.loss, self.norm = self.stepper.advance(Chunk(inputs, targets, weights, starts, chunk.count))
            self.state.copy_(self.stepper.state)
        self.stepper.state = self.state
        self.graph = graph


@contextmanager
def _no_collection() -> Iterator[None]:
    """A graph that is destroyed during a capture spoils it, and those of engines that are not used any more wait for
    Python's collector, which `torch.cuda.graph` has not called since PyTorch 2.9.
    """
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _tensors(chunk: Chunk) -> list[Tensor | None]:
    return [chunk.inputs, chunk.targets, chunk.weights, chunk.starts]
