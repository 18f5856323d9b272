"""P_delta from a full decomposition: an SVD, as defined, or the eigenvectors of the Gram matrix."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from spectralgru.recurrent.products import matmul

Solver = Literal["auto", "svd", "eigh"]
SOLVERS: tuple[Solver, ...] = ("auto", "svd", "eigh")
# Squaring loses digits. Up to these ratios of the largest singular value to the bound, the result is not affected.
FLOAT32_RANGE, FLOAT64_RANGE = 4.0, 1e3


class Clipped(NamedTuple):
    """Clipped matrices [N, n, m]; before the clip: descending singular values [N, p], right vectors [N, m, p]."""

    weight: Tensor
    sigma: Tensor
    vectors: Tensor


class Whole(NamedTuple):
    """A matrix to be clipped by the eigenvectors of its Gram matrix."""

    weight: Tensor  # [n, n]
    bound: float


def clip(weight: Tensor, bound: Tensor, method: Solver) -> Clipped:
    """Clip the singular values of [N, n, m] at `bound` [N], in the precision of `weight`."""
    if method == "svd":
        return _svd(weight, bound)
    if weight.shape[1] < weight.shape[2]:
        tall = clip(weight.mT, bound, method)
        # These are left singular vectors; callers that need vectors pass square matrices.
        return Clipped(tall.weight.mT, tall.sigma, tall.vectors)
    result = _eigh(weight, bound)
    rough = result.sigma[:, 0] > FLOAT64_RANGE * bound
    if method == "auto" and rough.any():
        exact = _svd(weight[rough], bound[rough])
        for whole, part in zip(result, exact, strict=True):
            whole[rough] = part
    return result


def _eigh(weight: Tensor, bound: Tensor) -> Clipped:
    values, vectors = torch.linalg.eigh(matmul(weight.mT, weight))
    sigma, vectors = values.clamp_min(0).sqrt().flip(-1), vectors.flip(-1)
    # W - sum_i (1 - c / sigma_i) (W v_i) v_i^T changes only the values above the bound.
    count = int((sigma > bound[:, None]).sum(-1).max())
    top = vectors[..., :count]
    excess = (1 - bound[:, None] / sigma[:, :count]).clamp_min(0).unsqueeze(-2)
    return Clipped(weight - matmul(matmul(weight, top) * excess, top.mT), sigma, vectors)


def _svd(weight: Tensor, bound: Tensor) -> Clipped:
    u, sigma, vh = torch.linalg.svd(weight, full_matrices=False)
    return Clipped((u * sigma.minimum(bound[:, None]).unsqueeze(-2)) @ vh, sigma, vh.mT)
