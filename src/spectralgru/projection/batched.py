"""P_delta on many matrices at once by products alone: a fixed amount of work that never waits for the host.

Everything is in float64, which an H100 or H200 multiplies as fast as float32. With A = W^T W, sign(A - c^2) and the
polar factor Q of W come from scaled Newton-Schulz iterations, and

    P_delta(W) = W - (W - c Q) Pi,    Pi = (I + sign(A - c^2)) / 2.

`start` does this within a basis V of k columns that follows the leading singular vectors from call to call: W V takes
the place of W, G = V^T A V that of A. Then it proves that nothing was missed: with Pi_s the projector on the Ritz
values of G above s^2, s a little below c, and E = A V - V G,

    D = (I - V Pi_s V^T) A (I - V Pi_s V^T),    |D| <= |D^32|_F^(1/32) < c^2,

no eigenvalue of the clipped matrix' A is above c^2 + |E Pi_s|^2 / (c^2 - |D|). The host then reads, once for all, which
matrices lack that proof, and has `settle` clip them as a whole, with V = I.
"""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from spectralgru.projection.clip import clip

# The clip aims this far (relative) inside the bound.
MARGIN = 5e-6
# Relative excess of sigma^2 over its limit up to which a value may stay as it is.
RESOLUTION = 8e-6
# What the coupling may cause: relative excess of sigma_1^2, relative error of the matrix.
COUPLING, ERROR = 5e-7, 3e-6
COLUMNS = 32
# s^2 / c^2: Ritz values above it are taken out before the rest is bounded.
SPLIT = 0.93**2
SQUARINGS = 5
# Filters a call; two of degree 6 leave fewer matrices unproven than one of degree 12.
ROUNDS, DEGREE, FIRST_ROUNDS = 2, 6, 12
# Condition of the filtered basis up to which it becomes orthonormal again, and how well.
CONDITION, ORTHONORMAL = 1e7, 1e-8
# Largest sigma_1^2 / c^2 that the iterations are run for: few columns; whole matrices, the usual and the largest.
RANGE, RANGES = 16.0, (4.0, 64.0)
SMALLEST = 1e-300


@cache
def _scalings(smallest: float) -> tuple[float, ...]:
    """Factors of the cubic iteration that takes every x in [smallest, 1] to 1 (Chen and Chow 2014)."""
    factors, low = [], smallest
    while 1 - low > 1e-10:
        factors.append(math.sqrt(3 / (1 + low + low * low)))
        low = 0.5 * factors[-1] * low * (3 - (factors[-1] * low) ** 2)
    return tuple(factors)


def _unitary(x: Tensor, smallest: float) -> Tensor:
    """x [N, n, k] with singular values in [smallest, 1] made 1; smaller ones end in [0, 1]. Symmetric x: its sign."""
    for a in _scalings(smallest):
        x = torch.baddbmm(x, x, x.mT @ x, beta=1.5 * a, alpha=-0.5 * a**3)
    return x


def _norm(x: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.matrix_norm(x)
    return norms


def _each(x: Tensor) -> Tensor:
    """A number for each matrix [N], to be multiplied with matrices [N, n, k]."""
    return x[:, None, None]


def _power_norm(x: Tensor, squarings: int) -> Tensor:
    """Upper bound [N] of the largest eigenvalue of symmetric x >= 0, too high by n^(2^-squarings / 2) at most."""
    for _ in range(squarings):
        x = x @ x
    return _norm(x) ** (0.5**squarings)


def spectral_radius(matrix: Tensor) -> Tensor:
    """|lambda_1| [N] of [N, n, n] as |M^k|_F^(1/k), k = 2^20: from above, within about 1e-5 (relative)."""
    power, logarithm = matrix.double(), torch.zeros(len(matrix), dtype=torch.float64, device=matrix.device)
    for doubling in range(21):
        norm = _norm(power).clamp_min(SMALLEST)
        logarithm += norm.log() * 0.5**doubling
        power = power / _each(norm)
        power = power @ power
    return logarithm.exp().to(matrix.dtype)


class BatchedProjection:
    """Keeps matrices [N, n, n] below their bounds, step after step: `start`, which a CUDA graph can hold, then `settle`
    for those that are `unproven`.

    The guarantees are `SpectralProjection`'s. Matrices that are not finite are left alone.
    """

    # Changed in place by every call: a CUDA graph goes on writing to the tensors that it was captured with.
    sigma_max: Tensor  # [N], from below within 1 % where nothing was clipped; NaN: not finite
    saturated: Tensor  # [N] int64, how many values were above the bound
    _proven: Tensor  # [N] bool

    def __init__(self, max_sv: Tensor) -> None:
        """`max_sv` [N]: bounds, positive; infinity: only watched."""
        self.bound(max_sv)
        self.basis: Tensor | None = None  # [N, n, k]
        self.edge = torch.empty(0)  # [N], where the rest of the spectrum of A ends, roughly

    def bound(self, max_sv: Tensor) -> None:
        """Other bounds for the same matrices."""
        self.max_sv = max_sv.double()
        self.bounds: list[float] = self.max_sv.tolist()
        self._bounded = self.max_sv.isfinite().nonzero()[:, 0]
        self._limit = (self.max_sv * (1 - MARGIN)).square()
        self.sigma_max = torch.zeros_like(self.max_sv)
        self.saturated = torch.zeros_like(self.max_sv, dtype=torch.int64)
        self._proven = torch.ones_like(self.max_sv, dtype=torch.bool)

    @torch.no_grad()
    def start(self, weight: Tensor) -> None:
        """Clip `weight` [N, n, n] in place wherever the leading values tell themselves from the rest."""
        if self.max_sv.device != weight.device:  # a checkpoint's
            moved = {k: None if v is None else v.to(weight.device) for k, v in self.state_dict().items()}
            self.load_state_dict(moved)
        w = weight.double()
        norm = _norm(w)
        finite = norm.isfinite()
        if self.basis is None:
            self._begin(w)
        assert self.basis is not None
        for _ in range(ROUNDS):
            basis = self._filtered(w)
            self.basis.copy_(torch.where(_each(_norm(basis).isfinite()), basis, self.basis))
        basis = self.basis
        image = w @ basis
        gram = image.mT @ image
        most = _norm(gram)
        self.edge.copy_(0.75 * _leading(gram, most))
        sigma_max = (self.edge / 0.75).sqrt().masked_fill(~finite, torch.nan)

        limit = self._limit.minimum(4 * most + SMALLEST)  # where this is below c^2, nothing is above either
        top, outer = _above(gram, most, limit), _above(gram, most, SPLIT * limit)
        scale = most.maximum(limit).sqrt()
        polar = _unitary(image / _each(scale), RANGE**-0.5)
        excess = (image - _each(limit.sqrt()) * polar) @ top

        coupling = w.mT @ image - basis @ gram
        eye = torch.eye(basis.shape[-1], dtype=w.dtype, device=w.device)
        proven = (_norm(basis.mT @ basis - eye) <= ORTHONORMAL) & (most <= RANGE * limit)
        proven &= (_norm(outer @ outer - outer) <= ORTHONORMAL) & (
            _norm(coupling @ top) <= ERROR * limit.sqrt() * norm
        )
        if len(self._bounded):
            which, wanted = self._bounded, self._limit[self._bounded]
            rest = torch.baddbmm(w[which], (image @ outer)[which], basis[which].mT, alpha=-1)
            others = _power_norm(rest.mT @ (rest / _each(wanted)), SQUARINGS)
            coupled = _norm((coupling @ outer)[which]) / wanted
            proven[which] &= (others < 1) & (coupled.square() <= COUPLING * (1 - others))
            self.edge[which] = self.edge[which].fmin(others.clamp_max(SPLIT) * wanted)
        self._proven.copy_(proven | ~finite | ~self.max_sv.isfinite())
        saturated = _count(top)
        change = self._proven & finite & (saturated > 0)
        clipped = torch.baddbmm(w, excess, basis.mT, alpha=-1)
        weight.copy_(torch.where(_each(change), clipped, w))
        self.saturated.copy_(saturated * change)
        self.sigma_max.copy_(torch.where(change, self._limit.sqrt(), sigma_max))

    def unproven(self) -> Tensor:
        """Indices of the matrices that `start` could not clip. Waits for the device."""
        return (~self._proven).nonzero()[:, 0]

    @torch.no_grad()
    def settle(self, weight: Tensor, left: Tensor) -> None:
        """Clip the matrices `left` of `weight` as a whole."""
        w, limit = weight[left].double(), self._limit[left]
        gram = w.mT @ (w / _each(limit))
        most = _power_norm(gram, 3)
        largest = most.tolist()
        clipped, count = torch.empty_like(w), torch.zeros_like(left)
        lower = 0.0
        for upper in RANGES:
            mine = [i for i, u in enumerate(largest) if lower < u <= upper]
            lower = upper
            if mine:
                clipped[mine], count[mine] = _clip_whole(w[mine], gram[mine], limit[mine], upper)
        for i, u in enumerate(largest):
            if not u <= RANGES[-1]:
                result = clip(w[i : i + 1], limit[i : i + 1].sqrt(), "auto")
                clipped[i], count[i] = result.weight[0], (result.sigma[0] > limit[i].sqrt()).sum()
        change = count > 0
        weight[left] = torch.where(_each(change), clipped, w).to(weight.dtype)
        self.saturated[left] = count
        self.sigma_max[left] = torch.where(change, limit.sqrt(), self.sigma_max[left])

    def _begin(self, w: Tensor) -> None:
        """The same start for every matrix: subspace iteration from random columns."""
        size = w.shape[-1]
        columns = torch.randn(size, min(COLUMNS, size), generator=torch.Generator().manual_seed(0))
        basis = columns.to(w).expand(len(w), -1, -1)
        basis = _orthonormal(basis)
        for _ in range(FIRST_ROUNDS):
            moved = _orthonormal(w.mT @ (w @ basis) + SMALLEST)
            basis = torch.where(_each(_norm(moved.mT @ moved).isfinite()), moved, basis)
        image = w @ basis
        gram = image.mT @ image
        self.basis = basis.contiguous()
        self.edge = 0.75 * _leading(gram, _norm(gram))

    def _filtered(self, w: Tensor) -> Tensor:
        """The basis after a Chebyshev filter, which the added constant keeps from wiping out any column."""
        assert self.basis is not None
        scale = _each(2 / self.edge.clamp_min(SMALLEST))

        def product(columns: Tensor) -> Tensor:
            return scale * (w.mT @ (w @ columns)) - columns

        older, newer = self.basis, product(self.basis)
        for _ in range(DEGREE - 1):
            older, newer = newer, 2 * product(newer) - older
        return _orthonormal(newer + 1.5 * self.basis)

    def select(self, indices: Tensor) -> None:
        """Keep only the matrices `indices`, in that order."""
        self.bound(self.max_sv[indices])
        if self.basis is not None:
            self.basis, self.edge = self.basis[indices], self.edge[indices]

    def state_dict(self) -> dict[str, Any]:
        """What a bit-identical continuation on the same device needs."""
        basis = None if self.basis is None else self.basis.clone()
        return {"max_sv": self.max_sv, "basis": basis, "edge": self.edge.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`'s, on the device of its tensors."""
        self.bound(state["max_sv"])
        self.basis = None if state["basis"] is None else state["basis"].clone()
        self.edge = state["edge"].clone()


def _orthonormal(x: Tensor) -> Tensor:
    return _unitary(x / _each(_norm(x)), 1 / CONDITION)


def _above(gram: Tensor, most: Tensor, level: Tensor) -> Tensor:
    """Projector on the eigenvectors of `gram` above `level` [N]; all eigenvalues are at most `most` [N]."""
    scale = most.maximum(level)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    sign = _unitary(gram / _each(scale) - _each(level / scale) * eye, RESOLUTION / RANGE)
    return (eye + sign) / 2


def _leading(gram: Tensor, most: Tensor) -> Tensor:
    """The largest eigenvalue [N], from below: the mean of all, weighted with their 1024th powers."""
    scaled = gram / _each(most.clamp_min(SMALLEST))
    power = scaled
    for squarings in (4, 6):
        for _ in range(squarings):
            power = power @ power
        power = power / _each(_trace(power).clamp_min(SMALLEST))
    return most * (power * scaled.mT).sum((1, 2))


def _trace(x: Tensor) -> Tensor:
    return x.diagonal(dim1=-2, dim2=-1).sum(-1)


def _count(projector: Tensor) -> Tensor:
    """Its rank; a value within RESOLUTION of the limit may count or not."""
    return _trace(projector).nan_to_num().round().long()


def _clip_whole(w: Tensor, gram: Tensor, limit: Tensor, largest: float) -> tuple[Tensor, Tensor]:
    """[N, n, n] clipped at sqrt(limit) and how many were above; `gram` = w^T w / limit, at most `largest`."""
    eye = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
    scale = max(largest - 1, 1.0)
    above = (eye + _unitary((gram - eye) / scale, RESOLUTION / scale)) / 2
    root = _each(limit.sqrt())
    polar = _unitary(w / (root * largest**0.5), largest**-0.5)
    return w - (w - root * polar) @ above, _count(above)
