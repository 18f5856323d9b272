"""The gated recurrent unit: equations, hand-written forward and backward sweeps, replica axis.

    r = sigm(W_ir x + W_hr h)    z = sigm(W_iz x + W_hz h)    h' = z * h + (1 - z) * n

with the candidate of Kanai et al. (NIPS 2017), reset gate before the recurrent product (`reset="before"`),

    n = tanh(W_in x + W_hn (r * h))

or that of `torch.nn.GRU(bias=False)` (`reset="after"`), n = tanh(W_in x + r * (W_hn h)).
"""

import math
from typing import SupportsFloat, SupportsIndex

import torch
from torch import Tensor, nn

from spectralgru.errors import InputError
from spectralgru.recurrent.layer import Reset, check_reset, expect, expect_dense, gru_layer

__all__ = ["GRU", "Reset", "gru_layer"]


class GRU(nn.Module):
    """A stack of GRU layers without biases, time first, optionally with a leading axis of replicas.

    Weights are named and laid out as in `torch.nn.GRU(bias=False)` (`weight_ih_l0` [3H, I], `weight_hh_l0`
    [3H, H], rows r, z, n), so that the two can exchange state dicts; with `reset="after"` they compute the same.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        reset: Reset = "before",
        replicas: int | None = None,
    ) -> None:
        """Create the weights.

        Args:
            input_size: I.
            hidden_size: H.
            num_layers: L.
            dropout: probability of zeroing an output of any layer but the last during training.
            reset: where the reset gate acts, see `gru_layer`.
            replicas: R, or None for a single network without the axis.

        Raises:
            InputError: a size below 1, dropout outside [0, 1), or an unknown `reset`.
        """
        super().__init__()
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, value in (sizes if replicas is None else {**sizes, "replicas": replicas}).items():
            if not isinstance(value, SupportsIndex) or value < 1:
                raise InputError(f"{name}={value!r}: must be a whole number, at least 1")
        if not isinstance(dropout, SupportsFloat) or not 0 <= dropout < 1:
            raise InputError(f"dropout={dropout!r}: must be a number, at least 0 and below 1")
        check_reset(reset)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.dropout, self.replicas = dropout, replicas
        self.reset: Reset = reset
        lead = () if replicas is None else (replicas,)
        for k in range(num_layers):
            width = input_size if k == 0 else hidden_size
            self.register_parameter(
                f"weight_ih_l{k}", nn.Parameter(torch.empty(*lead, 3 * hidden_size, width))
            )
            self.register_parameter(
                f"weight_hh_l{k}", nn.Parameter(torch.empty(*lead, 3 * hidden_size, hidden_size))
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights uniformly from +-1/sqrt(H), as `torch.nn.GRU` does."""
        bound = 1 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            nn.init.uniform_(weight, -bound, bound)

    def layer_weights(self, k: int) -> tuple[Tensor, Tensor]:
        """`weight_ih` [3H, I] and `weight_hh` [3H, H] of a layer, each with the axis of replicas first if there is one.

        Args:
            k: the layer, from 0.
        """
        return getattr(self, f"weight_ih_l{k}"), getattr(self, f"weight_hh_l{k}")

    def forward(
        self, x: Tensor, h0: Tensor | None = None, starts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the stack.

        Args:
            x: [T, B, I], or [R, T, B, I] with replicas.
            h0: states before the first step [L, B, H] or [R, L, B, H]; None means zero.
            starts: bool [T, B] or [R, T, B], see `gru_layer`.

        Returns:
            The last layer's states [T, B, H] or [R, T, B, H], and every layer's last state, shaped as `h0`.
        """
        expect_dense(x=x, h0=h0)
        lead = () if self.replicas is None else (self.replicas,)
        if x.dim() != 3 + len(lead) or x.shape[: len(lead)] != lead:
            expected = "[T, B, I]" if self.replicas is None else f"[{self.replicas}, T, B, I]"
            raise InputError(f"x has shape {list(x.shape)}; expected {expected}")
        if h0 is not None:
            expect("h0", h0, (*lead, self.num_layers, x.shape[-2], self.hidden_size))
        last = []
        for k in range(self.num_layers):
            if k > 0:
                x = nn.functional.dropout(x, self.dropout, self.training)
            h = None if h0 is None else h0.select(len(lead), k)
            x, h_n = gru_layer(x, h, *self.layer_weights(k), starts, self.reset)
            last.append(h_n)
        if x.requires_grad:
            x = x.clone()  # callers may change it in place, but not the states: the backward sweep reads them
        return x, torch.stack(last, len(lead))

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        parts = [f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, reset={self.reset!r}"]
        parts += [f"dropout={self.dropout}"] if self.dropout else []
        return ", ".join(parts + ([] if self.replicas is None else [f"replicas={self.replicas}"]))
