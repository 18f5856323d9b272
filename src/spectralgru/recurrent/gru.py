"""The gated recurrent unit: equations, hand-written forward and backward sweeps, replica axis.

    r = sigm(W_ir x + W_hr h)    z = sigm(W_iz x + W_hz h)    h' = z * h + (1 - z) * n

with the candidate of Kanai et al. (NIPS 2017), reset gate before the recurrent product (`reset="before"`),

    n = tanh(W_in x + W_hn (r * h))

or that of `torch.nn.GRU(bias=False)` (`reset="after"`), n = tanh(W_in x + r * (W_hn h)).
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spectralgru.errors import InputError, RunError
from spectralgru.recurrent import fused, native, sweeps

Reset = Literal["before", "after"]


def gru_layer(
    x: Tensor,
    h0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    starts: Tensor | None = None,
    reset: Reset = "before",
) -> tuple[Tensor, Tensor]:
    """One layer over a whole sequence; once differentiable in x, h0 and both weights.

    Args:
        x: inputs [T, B, I], or [R, T, B, I] for R replicas; the weights then have the leading axis too.
        h0: state before the first step [B, H] or [R, B, H]; None means zero.
        weight_ih: [3H, I], rows r, z, n as in `torch.nn.GRU`.
        weight_hh: [3H, H], rows r, z, n.
        starts: bool [T, B] or [R, T, B]; where true, the state is set to zero before that step, so that
            several sequences can follow one another in one stream. (A state that is not finite becomes NaN.)
        reset: the reset gate acts "before" the recurrent product (the paper) or "after" it (PyTorch, cuDNN).

    Returns:
        All states [T, B, H] or [R, T, B, H] and the last one [B, H] or [R, B, H]. The backward sweep reads them:
        where gradients are wanted, change a copy of them in place, as `GRU` returns one, not them.

    Raises:
        InputError: shapes that do not fit each other, or an unknown `reset`.
    """
    if reset not in ("before", "after"):
        raise InputError(f"reset={reset!r}: unknown; use 'before' (the paper) or 'after' (torch.nn.GRU)")
    replicas = x.shape[:-3]
    steps, batch, hidden = x.shape[-3], x.shape[-2], weight_hh.shape[-1]
    state = (*replicas, batch, hidden)
    if h0 is None:
        h0 = x.new_zeros(state)
    _expect("x", x, (*replicas, steps, batch, weight_ih.shape[-1]))
    _expect("weight_ih", weight_ih, (*replicas, 3 * hidden, weight_ih.shape[-1]))
    _expect("weight_hh", weight_hh, (*replicas, 3 * hidden, hidden))
    _expect("h0", h0, state)
    if x.dim() not in (3, 4) or steps == 0:
        raise InputError(f"x has shape {list(x.shape)}; expected [T, B, I] or [R, T, B, I] with T >= 1")
    keep = None
    if starts is not None:
        _expect("starts", starts, (*replicas, steps, batch))
        keep = (~starts.bool()).unsqueeze(-1)
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, h0, weight_ih, weight_hh = (t.to(dtype) for t in (x, h0, weight_ih, weight_hh))
    before = reset == "before"
    if x.dim() == 4 and device == "cpu":
        # One after the other: each replica's weights stay in the cache, and its result does not depend on the others.
        if len(x) == 1:  # views, where taking apart and together again would copy
            alone = (None if t is None else t.squeeze(0) for t in (x, h0, weight_ih, weight_hh, keep))
            output = _layer(*alone, before).unsqueeze(0)
        else:
            keeps = [None] * len(x) if keep is None else keep
            each = zip(x, h0, weight_ih, weight_hh, keeps, strict=True)
            output = torch.stack([_layer(*tensors, before) for tensors in each])
    else:
        output = _layer(x, h0, weight_ih, weight_hh, keep, before)
    return output, output.select(-3, -1)


def _layer(*arguments: Any) -> Tensor:
    output: Tensor = _Layer.apply(*arguments)  # type: ignore[no-untyped-call]
    return output


def _sweeps(x: Tensor) -> Any:
    """The module whose `forward` and `backward` suit the tensors of a layer best."""
    return next((module for module in (fused, native) if module.usable(x)), sweeps)


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise InputError(f"{name} has shape {list(tensor.shape)}; expected {list(shape)}")


class _Once(torch.autograd.Function):
    """Passes gradients on; differentiating them again is an error, not a silently missing term."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if t is None else t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise RunError(
            "the GRU has no second derivative; for a gradient penalty write its equations step by step"
        )


def _once(backward: Callable[[Any, Tensor], tuple[Tensor | None, ...]]) -> Callable[..., Any]:
    """Like `once_differentiable`, which is silent when the inputs or weights but not `grad` are tracked."""

    @wraps(backward)
    def wrapped(ctx: Any, grad: Tensor) -> Any:
        with torch.no_grad():
            grads = backward(ctx, grad)
        if not torch.is_grad_enabled():
            return grads
        return _Once.apply(len(grads), *grads, grad, *ctx.saved_tensors)  # type: ignore[no-untyped-call]

    return wrapped


class _Layer(torch.autograd.Function):
    """The sweeps of one layer as one node of autograd's graph."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h0: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        keep: Tensor | None,
        before: bool,
    ) -> Tensor:
        trace: sweeps.Trace = _sweeps(x).forward(x, h0, weight_ih, weight_hh, keep, before)
        ctx.save_for_backward(x, weight_ih, weight_hh, keep, *trace)
        ctx.before = before
        return trace.states.narrow(-3, 1, x.shape[-3])

    @staticmethod
    @_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, keep, *trace = ctx.saved_tensors
        needs_x = ctx.needs_input_grad[0]
        gradients = _sweeps(x).backward(
            grad, x, weight_ih, weight_hh, keep, sweeps.Trace(*trace), ctx.before, needs_x
        )
        return *gradients, None, None


class GRU(nn.Module):
    """A stack of GRU layers without biases, time first, optionally with a leading axis of replicas.

    Weights are named and laid out as in `torch.nn.GRU(bias=False)` (`weight_ih_l0` [3H, I], `weight_hh_l0`
    [3H, H], rows r, z, n), so state dicts move between the two; `reset="after"` computes the same as it.
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
        """Make the weights.

        Args:
            input_size: I.
            hidden_size: H.
            num_layers: L.
            dropout: probability of zeroing an output of every layer but the last, while training.
            reset: where the reset gate acts, see `gru_layer`.
            replicas: R, or None for a single network without the axis.

        Raises:
            InputError: a size below 1, dropout outside [0, 1), or an unknown `reset`.
        """
        super().__init__()
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, value in (sizes if replicas is None else {**sizes, "replicas": replicas}).items():
            if value < 1:
                raise InputError(f"{name}={value}: must be at least 1")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout={dropout}: must be at least 0 and below 1")
        if reset not in ("before", "after"):
            raise InputError(f"reset={reset!r}: unknown; use 'before' (the paper) or 'after' (torch.nn.GRU)")
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
        """`weight_ih`, `weight_hh` of layer k."""
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
        lead = () if self.replicas is None else (self.replicas,)
        if x.dim() != 3 + len(lead) or x.shape[: len(lead)] != lead:
            wanted = "[T, B, I]" if self.replicas is None else f"[{self.replicas}, T, B, I]"
            raise InputError(f"x has shape {list(x.shape)}; expected {wanted}")
        if h0 is not None:
            _expect("h0", h0, (*lead, self.num_layers, x.shape[-2], self.hidden_size))
        last = []
        for k in range(self.num_layers):
            if k > 0:
                x = nn.functional.dropout(x, self.dropout, self.training)
            h = None if h0 is None else h0.select(len(lead), k)
            x, h_n = gru_layer(x, h, *self.layer_weights(k), starts, self.reset)
            last.append(h_n)
        if x.requires_grad:
            x = x.clone()  # may be changed in place; the states, which the backward sweep reads, may not
        return x, torch.stack(last, len(lead))

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        parts = [f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, reset={self.reset!r}"]
        parts += [f"dropout={self.dropout}"] if self.dropout else []
        return ", ".join(parts + ([] if self.replicas is None else [f"replicas={self.replicas}"]))
