"""The GRU forward and backward through time, on tensors [T, B, H] or, for all replicas at once, [R, T, B, H].

Input products and weight gradients of all steps are single products outside the sweeps. A step is two dependent
products (gates, then candidate; in the backward sweep the other way round) and pointwise work in place.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectralgru.recurrent.products import adder, matmul, multiplier

_sigmoid_backward: Any = torch.ops.aten.sigmoid_backward.grad_input  # grad * s * (1 - s)
_tanh_backward: Any = torch.ops.aten.tanh_backward.grad_input  # grad * (1 - t * t)


class Inputs(NamedTuple):
    """Arguments of a layer; weights are [*, 3H, I] and [*, 3H, H]."""

    x: Tensor  # [*, T, B, I]
    h0: Tensor  # [*, B, H]
    weight_ih: Tensor
    weight_hh: Tensor
    keep: Tensor | None  # bool [*, T, B, 1], false where a sequence starts


class Activations(NamedTuple):
    """What the forward sweep leaves for the backward one."""

    states: Tensor  # [*, T + 1, B, H], h before and after every step
    gates: Tensor  # [*, T, B, 2H], r and z
    candidates: Tensor  # [*, T, B, H], n
    recurrent: Tensor  # [*, T, B, H], r * h (reset before) or W_hn h (reset after)


class Gradients(NamedTuple):
    """Gradients of the loss; `x` is None if not requested."""

    x: Tensor | None
    h0: Tensor
    weight_ih: Tensor
    weight_hh: Tensor


def begin(inputs: Inputs) -> Activations:
    """The first state and the input products, which a sweep turns into the activations r, z and n in place.

    The products are computed in the type of x and weight_ih, everything after them in that of h0, which may be higher.
    """
    x, h0, weight_ih, *_ = inputs
    *lead, steps, batch, _ = x.shape
    hidden = h0.shape[-1]
    flat = x.flatten(-3, -2)
    gates, candidates = (
        matmul(flat, rows.mT).to(h0.dtype).view(*lead, steps, batch, rows.shape[-2])
        for rows in (weight_ih[..., : 2 * hidden, :], weight_ih[..., 2 * hidden :, :])
    )
    states = gates.new_empty(*lead, steps + 1, batch, hidden)
    states.select(-3, 0).copy_(h0)
    return Activations(states, gates, candidates, torch.empty_like(candidates))


def forward(inputs: Inputs, before: bool) -> Activations:
    """Run all steps; `before`: the reset variant."""
    states, gates, candidates, recurrent = begin(inputs)
    weight_hh, keep = inputs.weight_hh, inputs.keep
    *_, steps, batch, hidden = candidates.shape
    add_gates = adder(weight_hh[..., : 2 * hidden, :].mT, batch, steps)
    candidate = weight_hh[..., 2 * hidden :, :].mT
    add_candidate, multiply = adder(candidate, batch, steps), multiplier(candidate, batch, steps)
    keeps = [None] * steps if keep is None else keep.unbind(-3)
    h_t, n_t, q_t = states.unbind(-3), candidates.unbind(-3), recurrent.unbind(-3)
    rz_t, r_t, z_t = (g.unbind(-3) for g in (gates, gates[..., :hidden], gates[..., hidden:]))
    for h, new, rz, r, z, n, q, kept in zip(h_t, h_t[1:], rz_t, r_t, z_t, n_t, q_t, keeps, strict=False):
        if kept is not None:
            h = h * kept
        torch.sigmoid(add_gates(h, rz), out=rz)
        if before:
            torch.mul(r, h, out=q)
            torch.tanh(add_candidate(q, n), out=n)
        else:
            q.copy_(multiply(h))
            n.addcmul_(r, q).tanh_()
        torch.lerp(n, h, z, out=new)
    return Activations(states, gates, candidates, recurrent)


def backward(
    grad: Tensor, inputs: Inputs, activations: Activations, before: bool, needs_x: bool
) -> Gradients:
    """Gradients of a loss whose gradient with respect to the states after each step is `grad` [*, T, B, H]."""
    states, gates, n, recurrent = activations
    weight_hh, keep = inputs.weight_hh, inputs.keep
    *_, steps, batch, hidden = n.shape
    previous = states[..., :-1, :, :]
    if keep is not None:
        previous = previous * keep
    r, z = gates[..., :hidden], gates[..., hidden:]
    # Derivatives with respect to the arguments of sigm (r, z) and tanh (n), which the sweep scales by dh or d(r * h).
    d_gates, d_n = torch.empty_like(gates), torch.empty_like(n)
    d_r, d_z = d_gates[..., :hidden], d_gates[..., hidden:]
    torch.sub(previous, n, out=d_z)
    _sigmoid_backward(d_z, z, grad_input=d_z)
    _tanh_backward(torch.neg(z, out=d_n).add_(1), n, grad_input=d_n)
    d_q = d_n
    if before:
        _sigmoid_backward(previous, r, grad_input=d_r)
    else:
        torch.mul(d_n, recurrent, out=d_r)
        _sigmoid_backward(d_r, r, grad_input=d_r)
        d_q = d_n * r
    add_gates = adder(weight_hh[..., : 2 * hidden, :], batch, steps)
    candidate = weight_hh[..., 2 * hidden :, :]
    multiply, add_candidate = multiplier(candidate, batch, steps), adder(candidate, batch, steps)
    backwards = [t.unbind(-3)[::-1] for t in (r, z, d_r, d_z, d_gates, d_n, d_q)]
    keeps = [None] * steps if keep is None else keep.unbind(-3)[::-1]
    dh, *earlier = grad.unbind(-3)[::-1]
    zero = torch.zeros_like(states.select(-3, 0))
    for r, z, dr, dz, drz, dn, dq, kept, g in zip(*backwards, keeps, [*earlier, zero], strict=True):
        dn.mul_(dh)
        dz.mul_(dh)
        # The part of the gradient that bypasses the gates, and the loss's own gradient at the state before the step.
        past = torch.addcmul(g if kept is None else zero, dh, z)
        if before:
            drh = multiply(dn)
            dr.mul_(drh)
            past.addcmul_(drh, r)
        else:
            dq.mul_(dh)
            dr.mul_(dh)
            past = add_candidate(dq, past)
        dh = add_gates(drz, past)
        if kept is not None:
            dh = torch.addcmul(g, dh, kept)
    return weight_gradients(inputs, previous, recurrent, d_gates, d_n, d_q, dh, before, needs_x)


def weight_gradients(
    inputs: Inputs,
    previous: Tensor,
    recurrent: Tensor,
    d_gates: Tensor,
    d_n: Tensor,
    d_q: Tensor,
    dh: Tensor,
    before: bool,
    needs_x: bool,
) -> Gradients:
    """All gradients, from those of the arguments of sigm (`d_gates`) and tanh (`d_n`) and of W_hn h (`d_q`) by step."""
    x, _, weight_ih, *_ = inputs
    hidden = d_n.shape[-1]
    flat_x, flat_gates, flat_n = x.flatten(-3, -2), d_gates.flatten(-3, -2), d_n.flatten(-3, -2)
    grad_x = None
    if needs_x:
        grad_x = matmul(flat_gates.to(x.dtype), weight_ih[..., : 2 * hidden, :])
        grad_x = grad_x.add_(matmul(flat_n.to(x.dtype), weight_ih[..., 2 * hidden :, :])).view_as(x)
    transposed = torch.cat([flat_gates.mT, flat_n.mT], -2)
    gates_hh = matmul(transposed[..., : 2 * hidden, :], previous.flatten(-3, -2))
    candidate_hh = (
        matmul(transposed[..., 2 * hidden :, :], recurrent.flatten(-3, -2))
        if before
        else matmul(d_q.flatten(-3, -2).mT, previous.flatten(-3, -2))
    )
    return Gradients(
        grad_x, dh, matmul(transposed.to(x.dtype), flat_x), torch.cat([gates_hh, candidate_hh], -2)
    )
