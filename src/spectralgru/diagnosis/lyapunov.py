"""Growth along data: finite-time Lyapunov exponents of a recurrent layer driven by inputs.

Like a gradient, directions are carried back through the steps by the transposed Jacobians. After each step QR makes
them orthonormal, and the diagonal of R says how much they grew (Benettin et al., 1980; for recurrent networks Engelken
et al., 2023). The exponents of a stack are those of its layers, each driven by the one below, since its Jacobian is
block triangular.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from spectralgru.diagnosis.cells import Cell
from spectralgru.errors import InputError


class Exponents(NamedTuple):
    """Growth of the `count` fastest directions, in descending order if the window is long enough for them to align."""

    exponents: Tensor  # [*, B, count], mean logarithm of the growth per step
    steps: Tensor  # [T, *, B, count], that logarithm for each counted step
    states: Tensor  # [T, *, B, S], after each step

    @property
    def state(self) -> Tensor:
        """[*, B, S], after the last step."""
        return self.states[-1]


def lyapunov_exponents(
    cell: Cell,
    x: Tensor,
    state: Tensor | None = None,
    *,
    count: int = 1,
    transient: int = 0,
    starts: Tensor | None = None,
    differentiable: bool = False,
) -> Exponents:
    """Finite-time Lyapunov exponents of one layer, for every lane.

    If an exponent is above 0, a gradient grows on its way back, and nearby states move apart. At the origin, without
    inputs, the largest one is the logarithm of the spectral radius of the Jacobian.

    Args:
        cell: the layer; with weights [R, ...] for R replicas, x and state have that axis, too.
        x: inputs [T, B, I] or [R, T, B, I].
        state: before the first step, [B, S] or [R, B, S]; None: zero.
        count: how many directions, at most S. They start at random, the same in every lane and call.
        transient: how many of the last steps only align the directions and are not counted.
        starts: bool [T, B] or [R, T, B]; where true, the state is set to zero before that step; the directions are not
            affected.
        differentiable: whether the result can be differentiated with respect to weights, inputs and state.

    Raises:
        InputError: count or transient out of range.
    """
    steps = x.shape[-3]
    if not 1 <= count <= cell.state_size:
        raise InputError(f"count={count}: must be from 1 to {cell.state_size}, the size of the state")
    if not 0 <= transient < steps:
        raise InputError(f"transient={transient}: must be at least 0 and below the {steps} steps of x")
    if state is None:
        state = x.new_zeros(*x.shape[:-3], x.shape[-2], cell.state_size)
    with torch.set_grad_enabled(differentiable):
        arguments = cell.project(x).unbind(-3)
        before, after = [], []
        for t, a in enumerate(arguments):
            if starts is not None:
                state = state.masked_fill(starts.select(-2, t).unsqueeze(-1), 0)
            before.append(state)
            after.append(state := cell.step(a, state))
        directions = starting_directions(count, cell.state_size).to(state).expand(*state.shape, count)
        logs = []
        for a, entering in zip(reversed(arguments), reversed(before), strict=True):
            pulled = pulled_back(cell, a, entering, directions, differentiable)
            directions, growth = _orthonormal(pulled)
            logs.append(growth.log())
        counted = torch.stack(logs[transient:][::-1])
        return Exponents(counted.mean(0), counted, torch.stack(after))


def starting_directions(count: int, size: int) -> Tensor:
    """Orthonormal columns [size, count] in float64, the same at every call."""
    start = torch.randn(count, size, generator=torch.Generator().manual_seed(0))
    directions: Tensor = torch.linalg.qr(start.mT.double())[0]
    return directions


def pulled_back(
    cell: Cell, a: Tensor, state: Tensor, directions: Tensor, differentiable: bool = False
) -> Tensor:
    """The transposed Jacobian of the step that begins at `state`, times the directions [..., S, count]."""
    with torch.enable_grad():
        entering = state.expand(directions.shape[-1], *state.shape)
        if not (differentiable and entering.requires_grad):
            entering = entering.detach().requires_grad_()
        rows, after = directions.movedim(-1, 0), cell.step(a, entering)
        (pulled,) = torch.autograd.grad(after, entering, rows, create_graph=differentiable)
    return pulled.movedim(0, -1)


def _orthonormal(directions: Tensor) -> tuple[Tensor, Tensor]:
    """Q, and the absolute diagonal of R [..., count]."""
    if directions.shape[-1] == 1:  # the same as QR, many times as fast
        norm = torch.linalg.vector_norm(directions, dim=-2, keepdim=True)
        return directions / norm.where(norm > 0, 1), norm.squeeze(-2)
    q, r = torch.linalg.qr(directions)
    return q, r.diagonal(dim1=-2, dim2=-1).abs()
