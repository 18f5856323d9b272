"""One step of every kind of cell, with the paths along which a gradient returns to the state before it.

A path can be cut: the state that enters it becomes a constant, which keeps the values but removes the gradient along
it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["GRU, reset before", "GRU, reset after", "LSTM", "RNN, tanh", "RNN, relu"]

# Paths in the order of the rows of weight_hh; the last one bypasses every matrix.
GRU_PATHS = ("reset gate", "update gate", "candidate", "carry")
LSTM_PATHS = ("input gate", "forget gate", "candidate", "output gate", "cell")
RNN_PATHS = ("recurrence",)


@dataclass(frozen=True)
class Cell:
    """The weights of one layer in one direction; with replicas, each has a leading axis R.

    A state is [..., B, S]: h with S = H, or for an LSTM h and c side by side with S = 2H.
    """

    kind: Kind
    weight_ih: Tensor  # [G * H, I], rows as PyTorch orders them
    weight_hh: Tensor  # [G * H, H]
    bias_ih: Tensor | None = None  # [G * H]
    bias_hh: Tensor | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths by which the state enters: blocks of `weight_hh` in the order of its rows, then the bypass."""
        return {"G": GRU_PATHS, "L": LSTM_PATHS, "R": RNN_PATHS}[self.kind[0]]

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.weight_hh.shape[-1]

    @property
    def state_size(self) -> int:
        """S."""
        return self.hidden_size * (2 if self.kind == "LSTM" else 1)

    def replica(self, index: int) -> "Cell":
        """The cell of one replica."""
        return self._each(lambda weight: weight[index])

    def double(self) -> "Cell":
        """In float64, without gradients."""
        return self._each(lambda weight: weight.detach().double())

    def _each(self, function: Callable[[Tensor], Tensor]) -> "Cell":
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        first, second, *biases = (None if w is None else function(w) for w in weights)
        assert first is not None
        assert second is not None
        return Cell(self.kind, first, second, *biases)

    def is_finite(self) -> bool:
        """Whether every weight and bias is finite."""
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return all(bool(w.isfinite().all()) for w in weights if w is not None)

    def blocks(self) -> dict[str, Tensor]:
        """The square blocks [..., H, H] of `weight_hh`, views, by path."""
        rows = self.weight_hh.chunk(self.weight_hh.shape[-2] // self.hidden_size, -2)
        return dict(zip(self.paths, rows, strict=False))

    def project(self, x: Tensor) -> Tensor:
        """The contribution of the inputs x [T, B, I] (or [R, T, B, I]) to the arguments of the gates, [..., G * H]."""
        weight = self.weight_ih if self.weight_ih.dim() == 2 else self.weight_ih.unsqueeze(-3)
        a = x @ weight.mT
        return a if self.bias_ih is None else a + self.bias_ih

    def step(self, a: Tensor, state: Tensor, cut: Collection[str] = ()) -> Tensor:
        """The state after a step, from the projected input [..., B, G * H] and the state before it."""

        def seen(path: str, part: Tensor = state) -> Tensor:
            return part.detach() if path in cut else part

        return _STEPS[self.kind](self, a, state, seen)

    def arguments(self, a: Tensor, h_of: Callable[[str], Tensor]) -> dict[str, Tensor]:
        """The argument of each sigm and tanh: input, recurrent product and biases."""
        recurrent = self.recurrent(h_of)
        return {
            path: part + recurrent[path]
            for path, part in zip(recurrent, a.chunk(len(recurrent), -1), strict=True)
        }

    def recurrent(self, h_of: Callable[[str], Tensor]) -> dict[str, Tensor]:
        """W h (+ b_hh) for each block, where h may differ from path to path."""
        blocks = self.blocks()
        if self.bias_hh is None:
            return {path: h_of(path) @ block.mT for path, block in blocks.items()}
        biases = self.bias_hh.chunk(len(blocks), -1)
        return {p: h_of(p) @ block.mT + b for (p, block), b in zip(blocks.items(), biases, strict=True)}


def _gru_after(cell: Cell, a: Tensor, h: Tensor, seen: Callable[..., Tensor]) -> Tensor:
    recurrent, (a_r, a_z, a_n) = cell.recurrent(seen), a.chunk(3, -1)
    r, z = torch.sigmoid(a_r + recurrent["reset gate"]), torch.sigmoid(a_z + recurrent["update gate"])
    n = torch.tanh(a_n + r * recurrent["candidate"])
    return z * seen("carry") + (1 - z) * n


def _gru_before(cell: Cell, a: Tensor, h: Tensor, seen: Callable[..., Tensor]) -> Tensor:
    (a_r, a_z, a_n), blocks = a.chunk(3, -1), cell.blocks()
    r = torch.sigmoid(a_r + seen("reset gate") @ blocks["reset gate"].mT)
    z = torch.sigmoid(a_z + seen("update gate") @ blocks["update gate"].mT)
    n = torch.tanh(a_n + (r * seen("candidate")) @ blocks["candidate"].mT)
    return z * seen("carry") + (1 - z) * n


def _lstm(cell: Cell, a: Tensor, state: Tensor, seen: Callable[..., Tensor]) -> Tensor:
    h, c = state.chunk(2, -1)
    at = cell.arguments(a, lambda path: seen(path, h))
    i, f, o = (torch.sigmoid(at[gate]) for gate in ("input gate", "forget gate", "output gate"))
    c = f * seen("cell", c) + i * torch.tanh(at["candidate"])
    return torch.cat([o * torch.tanh(c), c], -1)


def _rnn(cell: Cell, a: Tensor, h: Tensor, seen: Callable[..., Tensor]) -> Tensor:
    argument = cell.arguments(a, seen)["recurrence"]
    return torch.relu(argument) if cell.kind == "RNN, relu" else torch.tanh(argument)


_STEPS: dict[str, Callable[[Cell, Tensor, Tensor, Callable[..., Tensor]], Tensor]] = {
    "GRU, reset before": _gru_before,
    "GRU, reset after": _gru_after,
    "LSTM": _lstm,
    "RNN, tanh": _rnn,
    "RNN, relu": _rnn,
}
