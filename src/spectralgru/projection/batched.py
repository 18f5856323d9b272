"""P_delta on many matrices at once, by matrix products alone: a fixed amount of work that never waits for the host.

Everything is in float64, which an H100 or H200 multiplies as fast as float32. With A = W^T W, sign(A - c^2) and the
polar factor Q of W come from scaled Newton-Schulz iterations, and

    P_delta(W) = W - (W - c Q) Pi,    Pi = (I + sign(A - c^2)) / 2.

`start` does this within a basis V of k columns that follows the leading singular vectors from call to call: W V takes
the place of W, G = V^T A V that of A. Then it proves that nothing was missed: with Pi_s the projector on the Ritz
values of G above s^2, s a little below c, and E = A V - V G,

    D = (I - V Pi_s V^T) A (I - V Pi_s V^T),    |D| <= |D^32|_F^(1/32) < c^2,

no eigenvalue of the clipped matrix's A is above c^2 + |E Pi_s|^2 / (c^2 - |D|). The host then reads once which of the
matrices lack that proof, and `clip_rest` clips those as a whole, with V = I.
"""

from typing import Any

import torch
from torch import Tensor

from spectralgru.projection.by_products import (
    RANGE,
    SMALLEST,
    clip_whole,
    each,
    frobenius,
    leading,
    orthonormal,
    power_norm,
    projector_above,
    rank,
    unitary,
)
from spectralgru.projection.clip import clip

# The clip aims this far (relative) inside the bound.
MARGIN = 5e-6
# How far a basis may be from orthonormal.
ORTHONORMAL = 1e-8
# The most that the coupling may cause: relative excess of sigma_1^2, relative error of the matrix.
COUPLING, ERROR = 5e-7, 3e-6
COLUMNS = 32
# s^2 / c^2: Ritz values above it are removed before the rest is bounded.
SPLIT = 0.93**2
SQUARINGS = 5
# Filters per call; two of degree 6 leave fewer matrices unproven than one of degree 12.
ROUNDS, DEGREE, FIRST_ROUNDS = 2, 6, 12
# Largest sigma_1^2 / c^2 for which whole matrices are clipped: usually, and at most.
RANGES = (2.0, 64.0)


class BatchedProjection:
    """Keeps matrices [N, n, n] below their bounds at every step.

    Call `start`, which a CUDA graph can hold, then `clip_rest` for the matrices that are `unproven`. The guarantees are
    those of `SpectralProjection`. Matrices that are not finite are left alone.
    """

    # Changed in place by every call: a CUDA graph keeps writing to the tensors that it was captured with.
    sigma_max: Tensor  # [N]; where nothing was clipped, an estimate up to 1.2 % too low; NaN: not finite
    saturated: Tensor  # [N] int64, how many values were above the bound
    _proven: Tensor  # [N] bool

    def __init__(self, max_sv: Tensor) -> None:
        """`max_sv` [N]: bounds, positive; infinity: only tracked."""
        self.bound(max_sv)
        self.basis: Tensor | None = None  # [N, n, k]
        self.edge = torch.empty(0)  # [N], roughly where the spectrum of A outside the basis ends

    def bound(self, max_sv: Tensor) -> None:
        """Set new bounds for the same matrices."""
        self.max_sv = max_sv.double()
        self.bounds: list[float] = self.max_sv.tolist()
        self._bounded = self.max_sv.isfinite().nonzero()[:, 0]
        self._limit = (self.max_sv * (1 - MARGIN)).square()
        self.sigma_max = torch.zeros_like(self.max_sv)
        self.saturated = torch.zeros_like(self.max_sv, dtype=torch.int64)
        self._proven = torch.ones_like(self.max_sv, dtype=torch.bool)

    @torch.no_grad()
    def start(self, weight: Tensor) -> None:
        """Clip `weight` [N, n, n] in place wherever the leading values can be told from the rest."""
        if self.max_sv.device != weight.device:  # loaded from a checkpoint
            moved = {k: None if v is None else v.to(weight.device) for k, v in self.state_dict().items()}
            self.load_state_dict(moved)
        w = weight.double()
        finite = frobenius(w).isfinite()
        if self.basis is None:
            self._begin(w)
        assert self.basis is not None
        scaled = w * each((2 / self.edge.clamp_min(SMALLEST)).sqrt())
        for _ in range(ROUNDS):
            self._filter(scaled)
        image = w @ self.basis
        gram = image.mT @ image
        most = frobenius(gram)
        self.edge.copy_(0.75 * leading(gram, most))
        self.sigma_max.copy_((self.edge / 0.75).sqrt().masked_fill(~finite, torch.nan))
        if len(self._bounded):
            self._clip(weight, *(t[self._bounded] for t in (w, self.basis, image, gram, most)))

    def _clip(
        self, weight: Tensor, w: Tensor, basis: Tensor, image: Tensor, gram: Tensor, most: Tensor
    ) -> None:
        """Of the matrices that have a bound, w of `weight`, clip those for which a proof is found.

        basis, image, gram, most: V, W V, G, and a number that no eigenvalue of G is above.
        """
        which, wanted = self._bounded, self._limit[self._bounded]
        norm = frobenius(w)
        limit = wanted.minimum(4 * most + SMALLEST)  # where this is below c^2, no value is above c^2
        levels = torch.cat([limit, SPLIT * limit])  # both by one chain of products
        top, outer = projector_above(gram.repeat(2, 1, 1), most.repeat(2), levels).chunk(2)
        scale = most.maximum(limit).sqrt()
        polar = unitary(image / each(scale), RANGE**-0.5)
        excess = (image - each(limit.sqrt()) * polar) @ top

        coupling = w.mT @ image - basis @ gram
        eye = torch.eye(basis.shape[-1], dtype=w.dtype, device=w.device)
        proven = (frobenius(basis.mT @ basis - eye) <= ORTHONORMAL) & (most <= RANGE * limit)
        proven &= (frobenius(outer @ outer - outer) <= ORTHONORMAL) & (
            frobenius(coupling @ top) <= ERROR * limit.sqrt() * norm
        )
        rest = torch.baddbmm(w, image @ outer, basis.mT, alpha=-1)
        others = power_norm(rest.mT @ (rest / each(wanted)), SQUARINGS)
        coupled = frobenius(coupling @ outer) / wanted
        proven &= (others < 1) & (coupled.square() <= COUPLING * (1 - others))
        self.edge[which] = self.edge[which].fmin(others.clamp_max(SPLIT) * wanted)
        finite, saturated = norm.isfinite(), rank(top)
        change = proven & finite & (saturated > 0)
        clipped = torch.baddbmm(w, excess, basis.mT, alpha=-1)
        weight[which] = torch.where(each(change), clipped, w).to(weight.dtype)
        self._proven[which] = proven | ~finite
        self.saturated[which] = saturated * change
        self.sigma_max[which] = torch.where(change, wanted.sqrt(), self.sigma_max[which])

    def unproven(self) -> Tensor:
        """Indices of the matrices that `start` could not clip. Waits for the device."""
        return (~self._proven).nonzero()[:, 0]

    @torch.no_grad()
    def clip_rest(self, weight: Tensor, left: Tensor) -> None:
        """Clip the matrices `left` of `weight` as a whole."""
        w, limit = weight[left].double(), self._limit[left]
        gram = w.mT @ (w / each(limit))
        most = power_norm(gram, 3)
        largest = most.tolist()
        clipped, count = torch.empty_like(w), torch.zeros_like(left)
        lower = 0.0
        for upper in RANGES:
            group = [i for i, u in enumerate(largest) if lower < u <= upper]
            lower = upper
            if group:
                clipped[group], count[group] = clip_whole(w[group], gram[group], limit[group], upper)
        for i, u in enumerate(largest):
            if not u <= RANGES[-1]:
                result = clip(w[i : i + 1], limit[i : i + 1].sqrt(), "auto")
                clipped[i], count[i] = result.weight[0], (result.sigma[0] > limit[i].sqrt()).sum()
        change = count > 0
        weight[left] = torch.where(each(change), clipped, w).to(weight.dtype)
        self.saturated[left] = count
        self.sigma_max[left] = torch.where(change, limit.sqrt(), self.sigma_max[left])

    def _begin(self, w: Tensor) -> None:
        """Start every matrix from the same random columns, by subspace iteration."""
        size = w.shape[-1]
        columns = torch.randn(size, min(COLUMNS, size), generator=torch.Generator().manual_seed(0))
        basis = columns.to(w).expand(len(w), -1, -1)
        basis = orthonormal(basis)
        for _ in range(FIRST_ROUNDS):
            moved = orthonormal(w.mT @ (w @ basis) + SMALLEST)
            basis = torch.where(each(frobenius(moved.mT @ moved).isfinite()), moved, basis)
        image = w @ basis
        gram = image.mT @ image
        self.basis = basis.contiguous()
        self.edge = 0.75 * leading(gram, frobenius(gram))

    def _filter(self, scaled: Tensor) -> None:
        """Turn the basis towards the leading vectors: a Chebyshev filter of scaled^T scaled - 1."""
        assert self.basis is not None
        older, newer = self.basis, torch.baddbmm(self.basis, scaled.mT, scaled @ self.basis, beta=-1)
        for _ in range(DEGREE - 1):
            both = torch.add(older, newer, alpha=2)
            older, newer = newer, both.baddbmm_(scaled.mT, scaled @ newer, beta=-1, alpha=2)
        # The constant added to the filter keeps every column from vanishing.
        turned = orthonormal(newer + 1.5 * self.basis)
        self.basis.copy_(torch.where(each(frobenius(turned).isfinite()), turned, self.basis))

    def select(self, indices: Tensor) -> None:
        """Keep only the matrices `indices`, in that order."""
        self.bound(self.max_sv[indices])
        if self.basis is not None:
            self.basis, self.edge = self.basis[indices], self.edge[indices]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue bit for bit on the same device."""
        basis = None if self.basis is None else self.basis.clone()
        return {"max_sv": self.max_sv, "basis": basis, "edge": self.edge.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict()`, on the device of its tensors."""
        self.bound(state["max_sv"])
        self.basis = None if state["basis"] is None else state["basis"].clone()
        self.edge = state["edge"].clone()
