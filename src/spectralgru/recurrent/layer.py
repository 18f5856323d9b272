"""One GRU layer over a whole sequence, with its gradient: checks the tensors and chooses the sweeps that suit them."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor

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
        x: inputs [T, B, I], or [R, T, B, I] for R replicas, whose weights then have the leading axis, too. If x and
            weight_ih are bfloat16 or float16, h0 and weight_hh may be float32: then only the input products are
            computed in the lower type, the recurrence and the states in float32.
        h0: state before the first step [B, H] or [R, B, H]; None means zero.
        weight_ih: [3H, I], rows r, z, n as in `torch.nn.GRU`.
        weight_hh: [3H, H], rows r, z, n.
        starts: bool [T, B] or [R, T, B]; where true, the state is set to zero before that step, so that several
            sequences can follow one another in one stream. (A state that is not finite becomes NaN.)
        reset: the reset gate acts "before" the recurrent product (the paper) or "after" it (PyTorch, cuDNN).

    Returns:
        All states [T, B, H] or [R, T, B, H], and the last one [B, H] or [R, B, H]. The backward sweep reads them: if
        you need gradients, copy them before changing them in place, as `GRU` does.

    Raises:
        InputError: shapes, types, devices or layouts do not match, `reset` is unknown, or a transform of `torch.func`
            is active.
    """
    check_reset(reset)
    x, h0, weight_ih, weight_hh, keep = _checked(x, h0, weight_ih, weight_hh, starts)
    before = reset == "before"
    if x.dim() == 4 and x.device.type == "cpu":
        # One by one: the weights of each replica stay in the cache, and its result does not depend on the others.
        if len(x) == 1:  # views: splitting and joining again would copy
            alone = (None if t is None else t.squeeze(0) for t in (x, h0, weight_ih, weight_hh, keep))
            output = _layer(*alone, before).unsqueeze(0)
        else:
            keeps = [None] * len(x) if keep is None else keep
            each = zip(x, h0, weight_ih, weight_hh, keeps, strict=True)
            output = torch.stack([_layer(*tensors, before) for tensors in each])
    else:
        output = _layer(x, h0, weight_ih, weight_hh, keep, before)
    return output, output.select(-3, -1)


def _checked(
    x: Tensor, h0: Tensor | None, weight_ih: Tensor, weight_hh: Tensor, starts: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """The layer's tensors in autocast's type, and `keep`; all match x, for which the sweeps are chosen."""
    expect_dense(x=x, weight_ih=weight_ih, weight_hh=weight_hh, h0=h0, starts=starts)
    if x.dim() not in (3, 4) or 0 in x.shape[:-2]:
        raise InputError(f"x has shape {list(x.shape)}; expected [T, B, I] or [R, T, B, I] with R, T >= 1")
    if x.layout != torch.strided or not x.is_floating_point():
        raise InputError(f"x is {x.dtype}, {x.layout}; expected floating point, torch.strided")
    for name, weight in (("weight_ih", weight_ih), ("weight_hh", weight_hh)):
        if weight.dim() != x.dim() - 1:
            raise InputError(
                f"{name} has shape {list(weight.shape)}; expected {x.dim() - 1} axes with x {list(x.shape)}"
            )
    *replicas, steps, batch, _ = x.shape
    hidden, width = weight_hh.shape[-1], weight_ih.shape[-1]
    state = (*replicas, batch, hidden)
    if h0 is None:
        h0 = weight_hh.new_zeros(state)
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, h0, weight_ih, weight_hh = (t.to(dtype) for t in (x, h0, weight_ih, weight_hh))
    half = x.dtype in (torch.bfloat16, torch.float16)
    state_dtype = torch.float32 if half and weight_hh.dtype == torch.float32 else x.dtype
    expect("x", x, (*replicas, steps, batch, width))
    expect("weight_ih", weight_ih, (*replicas, 3 * hidden, width), x)
    expect("weight_hh", weight_hh, (*replicas, 3 * hidden, hidden), x, state_dtype)
    expect("h0", h0, state, x, state_dtype)
    keep = None
    if starts is not None:
        expect("starts", starts, (*replicas, steps, batch), x, starts.dtype)
        keep = (~starts.bool()).unsqueeze(-1)
    return x, h0, weight_ih, weight_hh, keep


def _layer(*arguments: Any) -> Tensor:
    if torch._C._are_functorch_transforms_active():
        raise InputError(
            "the GRU does not go through torch.func (vmap, grad, jacrev, ...); use torch.autograd.grad, or replicas=R"
            " where vmap would run R networks"
        )
    output: Tensor = _Layer.apply(*arguments)  # type: ignore[no-untyped-call]
    return output


def sweeps_for(weight_hh: Tensor) -> Any:
    """The fastest module whose `forward` and `backward` can take the tensors of a layer."""
    return next((module for module in (fused, native) if module.usable(weight_hh)), sweeps)


def check_reset(reset: str) -> None:
    """Refuse anything that is not a `Reset`."""
    if reset not in ("before", "after"):
        raise InputError(f"reset={reset!r}: unknown; use 'before' (the paper) or 'after' (torch.nn.GRU)")


def expect_dense(**given: Tensor | None) -> None:
    """Refuse anything but single dense tensors; h0 and starts may be None."""
    for name, value in given.items():
        if value is None and name in ("h0", "starts"):
            continue
        if not isinstance(value, Tensor) or value.is_nested:
            kind = "nested tensor" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"{name} is a {kind}; expected one dense torch.Tensor: convert it, with torch.as_tensor, or where it is"
                " packed or nested by padding (torch.nn.utils.rnn.pad_packed_sequence, to_padded_tensor)"
            )


def expect(
    name: str,
    tensor: Tensor,
    shape: tuple[int, ...],
    x: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Refuse a different shape and, if x is given, a type, device or layout that differs from its own."""
    if tensor.shape != shape:
        raise InputError(f"{name} has shape {list(tensor.shape)}; expected {list(shape)}")
    if x is None:
        return
    kind, wanted = (tensor.dtype, tensor.device, tensor.layout), (dtype or x.dtype, x.device, x.layout)
    if kind != wanted:
        found, expected = ("{} on {}, {}".format(*k) for k in (kind, wanted))
        raise InputError(f"{name} is {found}; expected {expected}, as x: convert one of them with .to(...)")


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
    """Like `once_differentiable`, which raises no error when inputs or weights are tracked but `grad` is not."""

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
        inputs = sweeps.Inputs(x, h0, weight_ih, weight_hh, keep)
        activations: sweeps.Activations = sweeps_for(weight_hh).forward(inputs, before)
        ctx.save_for_backward(x, weight_ih, weight_hh, keep, *activations)
        ctx.before = before
        return activations.states.narrow(-3, 1, x.shape[-3])

    @staticmethod
    @_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, keep, *saved = ctx.saved_tensors
        activations = sweeps.Activations(*saved)
        inputs = sweeps.Inputs(x, activations.states.select(-3, 0), weight_ih, weight_hh, keep)
        gradients = sweeps_for(weight_hh).backward(
            grad, inputs, activations, ctx.before, ctx.needs_input_grad[0]
        )
        return *gradients, None, None
