"""The GRU's sweeps on a GPU: per step two products over all replicas and two Triton kernels, and no allocation.

Arguments and results are those of `sweeps`; tensors are [R, T, B, H] or, for a single network, [T, B, H].
"""

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from spectralgru.recurrent.sweeps import Activations, Gradients, Inputs, begin

AVAILABLE = find_spec("triton") is not None
# Units of the hidden layer that one program handles.
BLOCK = 256


def usable(weight_hh: Tensor) -> bool:
    """Whether these sweeps can run with such a matrix."""
    return (
        AVAILABLE and weight_hh.is_cuda and weight_hh.dtype in (torch.float32, torch.bfloat16, torch.float16)
    )


def device_of(x: Tensor) -> AbstractContextManager[object]:
    """Select the device of x for the kernels; Triton's interpreter takes CPU tensors instead."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _grid(replicas: int, batch: int, hidden: int) -> tuple[tuple[int, int], dict[str, Any]]:
    block = min(BLOCK, 1 << (hidden - 1).bit_length())
    return (replicas * batch, -(-hidden // block)), {"BLOCK": block}


def _stacked(inputs: Inputs) -> Inputs:
    """Inputs of a single network as those of one replica."""
    return Inputs(*(None if t is None else t[None] for t in inputs))  # type: ignore[arg-type]


def _factors(keep: Tensor | None, like: Tensor) -> Tensor | None:
    return None if keep is None else keep.squeeze(-1).to(like.dtype).contiguous()


def forward(inputs: Inputs, before: bool) -> Activations:
    """See `sweeps.forward`."""
    if inputs.x.dim() == 3:
        return Activations(*(t[0] for t in forward(_stacked(inputs), before)))
    from spectralgru.recurrent import pointwise

    x, h0, _, weight_hh, keep = inputs
    states, gates, candidates, recurrent = begin(inputs)
    replicas, steps, batch, hidden = candidates.shape
    factors = _factors(keep, h0)
    held = None if factors is None else h0 * factors[:, 0, :, None]
    by_gates, by_candidate = weight_hh[:, : 2 * hidden].mT, weight_hh[:, 2 * hidden :].mT
    grid, options = _grid(replicas, batch, hidden)
    with device_of(x):
        for t in range(steps):
            rz, n, q, new = gates[:, t], candidates[:, t], recurrent[:, t], states[:, t + 1]
            h = states[:, t] if held is None else held
            rz.baddbmm_(h, by_gates)
            if before:
                pointwise.gates_forward[grid](
                    rz, h, q, rz.stride(0), h.stride(0), q.stride(0), batch, hidden, **options
                )
                n.baddbmm_(q, by_candidate)
            else:
                q.baddbmm_(h, by_candidate, beta=0)
            # If no state is masked, `new` takes the place of the factors and of their result.
            masked = held is not None and factors is not None and t + 1 < steps
            kept = factors[:, t + 1] if masked and factors is not None else new
            pointwise.state_forward[grid](
                *(rz, h, n, q, new, new if held is None else held, kept),
                *(v.stride(0) for v in (rz, h, n, q, new, kept)),
                *(batch, hidden),
                **options | {"BEFORE": before, "KEEP": masked},
            )
    return Activations(states, gates, candidates, recurrent)


def backward(
    grad: Tensor, inputs: Inputs, activations: Activations, before: bool, needs_x: bool
) -> Gradients:
    """See `sweeps.backward`."""
    if inputs.x.dim() == 3:
        saved = Activations(*(t[None] for t in activations))
        dx, *others = backward(grad[None], _stacked(inputs), saved, before, needs_x)
        return Gradients(None if dx is None else dx[0], *(t[0] for t in others))
    from spectralgru.recurrent import pointwise

    x, _, _, weight_hh, keep = inputs
    states, gates, candidates, recurrent = activations
    replicas, steps, batch, hidden = candidates.shape
    grad = grad.resolve_neg().contiguous()  # kernels read the storage as it is
    factors = _factors(keep, x)
    previous = states[:, :-1] if factors is None else states[:, :-1] * factors[..., None]
    d_gates, d_n = torch.empty_like(gates), torch.empty_like(candidates)
    d_q = d_n if before else torch.empty_like(d_n)
    carry, drh = (x.new_zeros(replicas, batch, hidden) for _ in range(2))
    gate_rows, candidate_rows = weight_hh[:, : 2 * hidden], weight_hh[:, 2 * hidden :]
    grid, options = _grid(replicas, batch, hidden)
    strides = (previous.stride(0), gates.stride(0))
    with device_of(x):
        for t in reversed(range(steps)):
            rz, d_rz, h = gates[:, t], d_gates[:, t], previous[:, t]
            # The last step has nothing to carry, whatever its factor.
            kept = None if factors is None else factors[:, min(t + 1, steps - 1)]
            pointwise.state_backward[grid](
                *(
                    grad[:, t],
                    carry,
                    carry if kept is None else kept,
                    rz,
                    h,
                    candidates[:, t],
                    recurrent[:, t],
                ),
                *(d_rz, d_n[:, t], d_q[:, t], *strides, d_n.stride(0), 0 if kept is None else kept.stride(0)),
                *(batch, hidden),
                **options | {"BEFORE": before, "KEEP": kept is not None},
            )
            if before:
                drh.baddbmm_(d_n[:, t], candidate_rows, beta=0)
                pointwise.gates_backward[grid](drh, carry, rz, h, d_rz, *strides, batch, hidden, **options)
            else:
                carry.baddbmm_(d_q[:, t], candidate_rows)
            carry.baddbmm_(d_rz, gate_rows)
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
    flat_gates, flat_n, flat_x = d_gates.flatten(1, 2), d_n.flatten(1, 2), x.flatten(1, 2)
    grad_x = None
    if needs_x:
        grad_x = torch.bmm(flat_gates, weight_ih[:, : 2 * hidden])
        grad_x = grad_x.baddbmm_(flat_n, weight_ih[:, 2 * hidden :]).view_as(x)
    grad_ih, grad_hh = torch.empty_like(weight_ih), torch.empty_like(weight_hh)
    grad_ih[:, : 2 * hidden].baddbmm_(flat_gates.mT, flat_x, beta=0)
    grad_ih[:, 2 * hidden :].baddbmm_(flat_n.mT, flat_x, beta=0)
    grad_hh[:, : 2 * hidden].baddbmm_(flat_gates.mT, previous.flatten(1, 2), beta=0)
    grad_hh[:, 2 * hidden :].baddbmm_(d_q.flatten(1, 2).mT, seen.flatten(1, 2), beta=0)
    return Gradients(grad_x, dh0, grad_ih, grad_hh)


def dropout(masks: Tensor, seeds: Tensor, drawn: Tensor, limit: int, factor: float) -> None:
    """Fill `masks` [R, ...], see `recurrent.dropout`."""
    from spectralgru.recurrent import pointwise

    length = masks[0].numel()
    with device_of(seeds):
        pointwise.dropout[(len(seeds), -(-length // (4 * BLOCK)))](
            masks, seeds, drawn, length, limit, factor, BLOCK=BLOCK
        )
