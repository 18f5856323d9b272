"""The GRU's sweeps on a GPU: all replicas advance at once, one Triton kernel for each of a step's dependent products.

Arguments and results are those of `sweeps`; tensors are [R, T, B, H] or, for a single network, [T, B, H].
"""

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from spectralgru.recurrent.sweeps import Activations, Gradients, Inputs, begin

AVAILABLE = find_spec("triton") is not None
# Sequences and units whose numbers a program makes, and how many terms of their sums it adds at a time. With these no
# register is spilled where the units are a multiple of 16.
BLOCKS = {"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_K": 32}
OPTIONS = BLOCKS | {"num_warps": 8, "num_stages": 4}
AMPERE = (8, 0)  # the first compute capability with TF32 and bfloat16


def usable(weight_hh: Tensor) -> bool:
    """Whether these sweeps can run with such a matrix."""
    return (
        AVAILABLE
        and weight_hh.is_cuda
        and weight_hh.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and torch.cuda.get_device_capability(weight_hh.device) >= AMPERE
    )


def device_of(x: Tensor) -> AbstractContextManager[object]:
    """Select the device of x for the kernels; Triton's interpreter takes CPU tensors instead."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _precision() -> str:
    """Of float32 products: TF32 where PyTorch's own use it, else three products of TF32, as good as float32."""
    products = torch.backends.cuda.matmul
    # Reading the older name is an error where a program has used the newer one, which 2.9 brought.
    rounded = (
        products.fp32_precision == "tf32" if hasattr(products, "fp32_precision") else products.allow_tf32
    )
    return "tf32" if rounded else "tf32x3"


def _launch(replicas: int, batch: int, hidden: int) -> tuple[tuple[int, int, int], dict[str, Any]]:
    """The grid of programs, and what all kernels are told."""
    grid = replicas, -(-batch // BLOCKS["BLOCK_M"]), -(-hidden // BLOCKS["BLOCK_N"])
    return grid, OPTIONS | {"PRECISION": _precision()}


def _stacked(inputs: Inputs) -> Inputs:
    """Inputs of a single network as those of one replica."""
    return Inputs(*(None if t is None else t[None] for t in inputs))  # type: ignore[arg-type]


def _factors(keep: Tensor | None, like: Tensor) -> Tensor | None:
    return None if keep is None else keep.squeeze(-1).to(like.dtype).contiguous()


def forward(inputs: Inputs, before: bool) -> Activations:
    """See `sweeps.forward`."""
    if inputs.x.dim() == 3:
        return Activations(*(t[0] for t in forward(_stacked(inputs), before)))
    from spectralgru.recurrent import sweep_kernels

    x, h0, _, weight_hh, keep = inputs
    states, gates, candidates, recurrent = begin(inputs)
    replicas, steps, batch, hidden = candidates.shape
    weight = weight_hh.contiguous()
    factors = _factors(keep, h0)
    # A step's state as it sees it, and where the next one's is written, if states are masked.
    masked = None if factors is None else h0 * factors[:, 0, :, None]
    spare = None if masked is None else torch.empty_like(masked)
    grid, options = _launch(replicas, batch, hidden)
    with device_of(x):
        for t in range(steps):
            rz, n, q, new = gates[:, t], candidates[:, t], recurrent[:, t], states[:, t + 1]
            h = states[:, t] if masked is None else masked
            following = None if factors is None or t + 1 == steps else factors[:, t + 1]
            held = new if following is None else spare
            kept = new if following is None else following
            tensors = (h, weight, rz, n, q, new, held, kept)
            strides = (v.stride(0) for v in (h, rz, n, new, kept))
            arguments = (*tensors, *strides, batch, hidden)
            options["KEEP"] = following is not None
            sweep_kernels.forward_gates[grid](*arguments, BEFORE=before, **options)
            if before:
                sweep_kernels.forward_state[grid](*arguments, **options)
            masked, spare = spare, masked
    return Activations(states, gates, candidates, recurrent)


def backward(
    grad: Tensor, inputs: Inputs, activations: Activations, before: bool, needs_x: bool
) -> Gradients:
    """See `sweeps.backward`."""
    if inputs.x.dim() == 3:
        saved = Activations(*(t[None] for t in activations))
        dx, *others = backward(grad[None], _stacked(inputs), saved, before, needs_x)
        return Gradients(None if dx is None else dx[0], *(t[0] for t in others))
    from spectralgru.recurrent import sweep_kernels

    x, _, _, weight_hh, keep = inputs
    states, gates, candidates, recurrent = activations
    replicas, steps, batch, hidden = candidates.shape
    grad = grad.resolve_neg().contiguous()  # kernels read the storage as it is
    factors = _factors(keep, x)
    previous = states[:, :-1] if factors is None else states[:, :-1] * factors[..., None]
    d_gates, d_n = torch.empty_like(gates), torch.empty_like(candidates)
    d_q = d_n if before else torch.empty_like(d_n)
    carry = previous.new_zeros(replicas, batch, hidden)
    weight = weight_hh.contiguous()
    grid, options = _launch(replicas, batch, hidden)
    s_rz, s_t, s_h = gates.stride(0), grad.stride(0), previous.stride(0)
    with device_of(x):
        for t in reversed(range(steps)):
            later = min(t + 1, steps - 1)
            rz, d_rz, h = gates[:, t], d_gates[:, t], previous[:, t]
            kept = carry if factors is None else factors[:, later]
            sweep_kernels.backward_state[grid](
                *(d_gates[:, later], d_q[:, later], weight, carry, kept, grad[:, t], rz, h),
                *(candidates[:, t], recurrent[:, t], d_rz, d_n[:, t], d_q[:, t]),
                *(s_rz, s_t, s_h, kept.stride(0), hidden * (later - t), batch, hidden),
                **options | {"BEFORE": before, "KEEP": factors is not None},
            )
            if before:
                sweep_kernels.backward_gates[grid](
                    *(d_n[:, t], weight, carry, rz, h, d_rz, s_t, s_rz, s_h, batch, hidden), **options
                )
    carry.baddbmm_(d_gates[:, 0], weight[:, : 2 * hidden])
    if not before:
        carry.baddbmm_(d_q[:, 0], weight[:, 2 * hidden :])
    dh0 = carry if factors is None else carry * factors[:, 0, :, None]
    seen = recurrent if before else previous  # the factor that W_hn was multiplied by
    return _gradients(inputs, previous, seen, d_gates, d_n, d_q, dh0, needs_x)


def _gradients(
    inputs: Inputs,
    previous: Tensor,
    seen: Tensor,
    d_gates: Tensor,
    d_n: Tensor,
    d_q: Tensor,
    dh0: Tensor,
    needs_x: bool,
) -> Gradients:
    """Like `sweeps.weight_gradients`, without copies."""
    x, _, weight_ih, weight_hh, _ = inputs
    hidden = d_n.shape[-1]
    flat_gates, flat_n, flat_x = (
        d_gates.flatten(1, 2).to(x.dtype),
        d_n.flatten(1, 2).to(x.dtype),
        x.flatten(1, 2),
    )
    grad_x = None
    if needs_x:
        grad_x = torch.bmm(flat_gates, weight_ih[:, : 2 * hidden])
        grad_x = grad_x.baddbmm_(flat_n, weight_ih[:, 2 * hidden :]).view_as(x)
    grad_ih, grad_hh = torch.empty_like(weight_ih), torch.empty_like(weight_hh)
    grad_ih[:, : 2 * hidden].baddbmm_(flat_gates.mT, flat_x, beta=0)
    grad_ih[:, 2 * hidden :].baddbmm_(flat_n.mT, flat_x, beta=0)
    grad_hh[:, : 2 * hidden].baddbmm_(d_gates.flatten(1, 2).mT, previous.flatten(1, 2), beta=0)
    grad_hh[:, 2 * hidden :].baddbmm_(d_q.flatten(1, 2).mT, seen.flatten(1, 2), beta=0)
    return Gradients(grad_x, dh0, grad_ih, grad_hh)
