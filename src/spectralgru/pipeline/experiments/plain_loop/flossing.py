"""Gradient flossing (Engelken, NeurIPS 2023, arXiv 2312.17306): pushes Lyapunov exponents towards zero during training.

A form that a CPU can afford: the author's exponents, differentiated through the states and the QR of every step, but
only a few of them, on some lanes of the batch and at some of the steps.
"""

import torch
from torch import Tensor

from spectralgru.diagnosis.lyapunov import lyapunov_exponents
from spectralgru.diagnosis.spectra import recurrent_cells
from spectralgru.pipeline.experiments.plain_loop.loop import PlainModel, State
from spectralgru.training.batches import Chunk

LANES = 4
EXPONENTS = 4  # of each layer, the largest
EVERY = 10  # training steps, the first included


class Flossing:
    """`strength` times the mean square of the leading exponents at every EVERY-th call, otherwise zero."""

    def __init__(self, model: PlainModel, strength: float) -> None:
        """`strength`: on the scale of the loss, which is summed over steps."""
        self.model, self.strength, self.calls = model, strength, 0

    def __call__(self, chunk: Chunk, state: State) -> Tensor | float:
        """The penalty for a batch, given the state before it."""
        self.calls += 1
        if self.calls % EVERY != 1:
            return 0.0
        return self.strength * exponents(self.model, chunk, state).square().mean()


def exponents(model: PlainModel, chunk: Chunk, state: State) -> Tensor:
    """Exponents [L, lanes, EXPONENTS] on the first lanes, without dropout; each layer is driven by the one below."""
    inputs, starts = (chunk.inputs, None) if model.words else (chunk.inputs[0], chunk.starts)
    x = model.input(inputs[:, :LANES]) * model.input_scale
    if starts is not None:
        starts = starts[0, :, :LANES]
    of_layers = []
    for layer, cell in enumerate(recurrent_cells(model.rnn, "").values()):
        before = torch.cat([part[layer, :LANES] for part in state], -1)
        got = lyapunov_exponents(cell, x, before, count=EXPONENTS, starts=starts, differentiable=True)
        of_layers.append(got.exponents)
        x = got.states[..., : model.hidden_size]
    return torch.stack(of_layers)
