"""The projection as the paper describes it: with the leading singular triplets alone, at most as many as Weyl allows.

Recalled, not checked against the paper: in a step no singular value grows by more than the update's Frobenius norm,
which bounds the number s of values above 2 - delta. If s is 0, the step needs no decomposition; otherwise the result is
W - sum_i (sigma_i - (2 - delta)) u_i v_i^T over the s leading triplets.
"""

import numpy as np
import torch
from scipy.sparse.linalg import svds
from torch import Tensor

# Beyond this share of n triplets, Lanczos takes longer than the full decomposition, which also renews all bounds.
MOST = 1 / 4
ROUNDING = 1e-5


class TruncatedProjection:
    """Keeps one matrix [n, n] at sigma_1 <= max_sv, step after step."""

    def __init__(self, max_sv: float) -> None:
        self.max_sv = max_sv
        self.bounds: np.ndarray | None = None  # [n], upper bounds of the singular values, descending
        self.start: np.ndarray | None = None  # leading singular vector of the last call

    def project(self, weight: Tensor, moved: float) -> Tensor:
        """The projected matrix; `moved`: at least the Frobenius norm of its change since the last projected one."""
        if self.bounds is None:
            return self._whole(weight)
        self.bounds += moved + ROUNDING * self.max_sv
        count = int((self.bounds > self.max_sv * (1 + 2 * ROUNDING)).sum())
        if count == 0:
            return weight
        if count > MOST * len(weight):
            return self._whole(weight)
        u, sigma, vh = svds(weight.numpy(), k=count, v0=self.start)
        u, sigma, vh = u[:, ::-1], sigma[::-1], vh[::-1]  # ARPACK's order is ascending
        self.start = vh[0].copy()
        self.bounds[:count] = np.minimum(sigma, self.max_sv)
        self.bounds[count:] = np.minimum(self.bounds[count:], sigma[-1])
        excess = np.maximum(sigma - self.max_sv, 0).astype(u.dtype)
        return weight - torch.from_numpy((u * excess) @ vh)

    def _whole(self, weight: Tensor) -> Tensor:
        u, sigma, vh = torch.linalg.svd(weight)
        clipped = sigma.clamp(max=self.max_sv)
        self.bounds, self.start = clipped.double().numpy(), vh[0].numpy().copy()
        whole: Tensor = (u * clipped) @ vh
        return whole
