"""Functions of many matrices [N, n, k] at once, made of matrix products, so that nothing waits for the host.

Sign, polar factor and projectors come from scaled Newton-Schulz iterations, norms and radii from powers, orthonormal
columns from Cholesky factors. On a GPU, `small` does what concerns 32 x 32 matrices alone.
"""

import math
from functools import cache

import torch
from torch import Tensor

from spectralgru.recurrent import fused

# Values whose sigma^2 exceeds the limit by less than this (relative) may stay.
RESOLUTION = 8e-6
# What is added to the diagonal of a Gram matrix, relative to its trace, so that it has a Cholesky factor. Dividing by
# that factor SWEEPS times makes columns orthonormal up to a condition of 1e12.
SHIFT, SWEEPS = 1e-14, 3
# Largest ratio of an eigenvalue to the level of `projector_above`.
RANGE = 16.0
SMALLEST = 1e-300


@cache
def _scalings(smallest: float) -> tuple[float, ...]:
    """Factors of the cubic iteration that takes every x in [smallest, 1] to 1 (Chen and Chow 2014)."""
    factors, low = [], smallest
    while 1 - low > 1e-10:
        factors.append(math.sqrt(3 / (1 + low + low * low)))
        low = 0.5 * factors[-1] * low * (3 - (factors[-1] * low) ** 2)
    return tuple(factors)


def unitary(x: Tensor, smallest: float) -> Tensor:
    """x [N, n, k] with singular values in [smallest, 1] made 1; smaller ones end in [0, 1]. Symmetric x: its sign."""
    if _is_small(x):
        from spectralgru.projection import small

        return small.unitary(x, _scalings(smallest))
    for a in _scalings(smallest):
        x = torch.baddbmm(x, x, x.mT @ x, beta=1.5 * a, alpha=-0.5 * a**3)
    return x


def frobenius(x: Tensor) -> Tensor:
    """The Frobenius norm of each matrix, [N]."""
    norms: Tensor = torch.linalg.matrix_norm(x)
    return norms


def each(x: Tensor) -> Tensor:
    """One number for each matrix [N], shaped to be multiplied by matrices [N, n, k]."""
    return x[:, None, None]


def power_norm(x: Tensor, squarings: int) -> Tensor:
    """Upper bound [N] on the largest eigenvalue of symmetric x >= 0, high by a factor n^(2^-squarings / 2) at most."""
    for _ in range(squarings):
        x = x @ x
    return frobenius(x) ** (0.5**squarings)


def spectral_radius(matrix: Tensor) -> Tensor:
    """|lambda_1| [N] of [N, n, n] as |M^k|_F^(1/k), k = 2^20: high by about 1e-5 (relative) at most."""
    power, logarithm = matrix.double(), torch.zeros(len(matrix), dtype=torch.float64, device=matrix.device)
    for doubling in range(21):
        norm = frobenius(power).clamp_min(SMALLEST)
        logarithm += norm.log() * 0.5**doubling
        power = power / each(norm)
        power = power @ power
    return logarithm.exp().to(matrix.dtype)


def orthonormal(x: Tensor) -> Tensor:
    """The columns made orthonormal, their span kept (shifted Cholesky QR, Fukaya et al. 2020)."""
    x = x / each(frobenius(x))
    for _ in range(SWEEPS):
        x = x @ inverse_factor(x.mT @ x)
    return x


def inverse_factor(gram: Tensor) -> Tensor:
    """R^-1, with R upper triangular and R^T R = gram [N, k, k] + SHIFT trace(gram)."""
    if _is_small(gram):
        from spectralgru.projection import small

        return small.inverse_factor(gram, SHIFT)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky_ex(gram + each(SHIFT * _trace(gram)) * eye).L
    inverse: Tensor = torch.linalg.solve_triangular(factor.mT, eye, upper=True)
    return inverse


def _is_small(x: Tensor) -> bool:
    return x.is_cuda and fused.AVAILABLE and x.shape[1:] == (32, 32)


def projector_above(gram: Tensor, most: Tensor, level: Tensor) -> Tensor:
    """Projector on the eigenvectors of `gram` with eigenvalues above `level` [N]; none is above `most` [N]."""
    scale = most.maximum(level)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    sign = unitary(gram / each(scale) - each(level / scale) * eye, RESOLUTION / RANGE)
    return (eye + sign) / 2


def leading(gram: Tensor, most: Tensor) -> Tensor:
    """Lower estimate [N] of the largest eigenvalue: the mean of all eigenvalues, weighted by their 1024th powers."""
    scaled = gram / each(most.clamp_min(SMALLEST))
    power = scaled
    for squarings in (4, 6):
        for _ in range(squarings):
            power = power @ power
        power = power / each(_trace(power).clamp_min(SMALLEST))
    return most * (power * scaled.mT).sum((1, 2))


def _trace(x: Tensor) -> Tensor:
    return x.diagonal(dim1=-2, dim2=-1).sum(-1)


def rank(projector: Tensor) -> Tensor:
    """Rank of a projector; a value within RESOLUTION of the limit may or may not count."""
    return _trace(projector).nan_to_num().round().long()


def clip_whole(w: Tensor, gram: Tensor, limit: Tensor, largest: float) -> tuple[Tensor, Tensor]:
    """w [N, n, n] clipped at sqrt(limit), and how many values were above; `gram` = w^T w / limit, at most `largest`."""
    eye = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
    scale = max(largest - 1, 1.0)
    above = (eye + unitary((gram - eye) / scale, RESOLUTION / scale)) / 2
    root = each(limit.sqrt())
    polar = unitary(w / (root * largest**0.5), largest**-0.5)
    return w - (w - root * polar) @ above, rank(above)
