"""P_delta from the few largest singular values, with a proof that no other is above the bound.

Let A = W^T W, U an orthonormal basis of approximate leading eigenvectors with Ritz values theta, E = A U - U theta
their coupling to the rest, e = |E|_F, and B the compression of A to the complement of U. In that basis

    A = [[theta, E^T], [E, B]],  so that after clipping theta at c^2 no eigenvalue is above c^2 + e^2 / (c^2 - |B|).

What remains is a bound on |B|, from either of two sources:

- a Cholesky factorisation of s^2 I - A + U theta U^T exists only if |B| < s^2. Its rounding errors do not matter
  because s^2 lies in a gap of the spectrum, well inside c^2.
- Weyl: if at most j singular values of an earlier W were above s and W has moved by at most d (Frobenius) since, at
  most j are above s + d now. If j Ritz values are above (s + d)^2 + e, they are those j, and |B| <= (s + d)^2 + e.

Vectors are the rows of the tensors here: a few rows times a matrix is what the CPU's libraries multiply fastest.
"""

from collections.abc import Callable
from itertools import accumulate
from math import acosh, inf, isfinite, isnan, nan
from typing import NamedTuple

import torch
from torch import Tensor

from spectralgru.recurrent.products import matmul

# The most by which the coupling may push sigma_1^2 above the bound (relative); the guarantee is 2e-6.
COUPLING = 5e-7
# The largest error of the clipped matrix, relative to its Frobenius norm, that the coupling may cause; the guarantee is
# 1e-5.
ERROR = 3e-6
# Narrower gaps (relative to c^2) drown in float32 rounding.
NARROWEST = 1e-4
# Chebyshev degrees of the successive sweeps. The first only brings in new outliers: amplifying them more would drown
# the other vectors, as would amplifying anything by more than STRONGEST.
DEGREES, STRONGEST = (4, 6, 8, 8), 1e8
# Tracking the leading pair: relative residual at which it has converged, Chebyshev degree of a sweep, sweeps per call,
# and the lowest edge of the filter as a share of the largest eigenvalue.
TRACKING, TRACKING_DEGREE, TRACKING_SWEEPS, LOWEST_EDGE = 2e-3, 6, 8, 1e-3
# sigma_1 / c: beyond AGAIN, float32 rounding leaves more above the bound than allowed, and the result is clipped once
# more; beyond FURTHEST, rounding spoils the result itself.
AGAIN, FURTHEST = 2.0, 16.0


def chebyshev(
    product: Callable[[Tensor], Tensor], basis: Tensor, image: Tensor, edge: float, degree: int
) -> Tensor:
    """basis @ T_degree(2 A / edge - 1): damps eigenvalues in [0, edge], amplifies the larger ones exponentially.

    `image`: basis @ A.
    """
    older, newer = basis, (image * (2 / edge)).sub_(basis)
    for _ in range(degree - 1):
        step = product(newer).mul_(4 / edge).sub_(newer, alpha=2).sub_(older)
        older, newer = newer, step
    return newer


def gentle(degree: int, top: float, edge: float) -> int:
    """`degree`, or the highest one that amplifies the eigenvalue `top` by no more than STRONGEST."""
    return min(degree, max(2, int(acosh(STRONGEST) / acosh(max(2 * top / edge - 1, 1.01)))))


class Above(NamedTuple):
    """At most `number` singular values are above `level`."""

    number: int
    level: float


class Search(NamedTuple):
    """The leading subspace of one matrix, and what to do with it."""

    weight: Tensor  # [n, n]
    basis: Tensor  # [k, n] orthonormal rows to start from; at most k - 1 values may be above the bound
    bound: float | None = None  # clip at this; None: only track the largest singular value
    known: Above | None = None  # what earlier steps and Weyl's inequality prove about this matrix
    norm: float = 0.0  # Frobenius norm of the weight
    edge: float = 0.0  # roughly where A's spectrum outside the basis ends; 0: the basis may be good enough


class Found(NamedTuple):
    """Result of a search; of one that only tracks, its basis and sigma."""

    basis: Tensor  # [k, n], for the next call, leading vectors last
    sigma: float  # the largest singular value, after the clip; NaN: known less accurately than `track` would find it
    weight: Tensor | None = None  # the clipped matrix, None where nothing was above the bound
    saturated: int = 0  # how many were above the bound
    edge: float = 0.0  # roughly where the spectrum of A outside the basis ends
    known: Above | None = None  # of the clipped matrix
    largest: float = inf  # no singular value of the clipped matrix is above this


def search(of: Search) -> Found | None:
    """Search the leading subspace of one matrix; None: its values above the bound cannot be told from the rest."""
    if of.bound is None:
        return track(of.weight, of.basis)
    found = clip_few(of)
    if found is None or found.saturated or not isnan(found.sigma):
        return found
    # Proving that nothing is above the bound takes no accurate singular value, but the record needs one.
    tracked = track(of.weight, found.basis)
    return found._replace(basis=tracked.basis, sigma=tracked.sigma)


def orthonormal(rows: Tensor) -> Tensor:
    """Orthonormal rows that span the same space."""
    columns: Tensor = torch.linalg.qr(rows.mT).Q
    return columns.mT


def ritz(image: Tensor, basis: Tensor) -> tuple[Tensor, Tensor] | None:
    """Ritz values (ascending) and rotation (rows) for `image` = `basis` @ A, A symmetric; None after an overflow."""
    compressed = image @ basis.mT
    if not isfinite(float(compressed.sum())):
        return None
    values, rotation = torch.linalg.eigh(compressed)  # reads one triangle
    return values, rotation.mT


def track(weight: Tensor, basis: Tensor) -> Found:
    """Estimate of the largest singular value, from below, and a better basis [k, n] for the next call, leading last.

    Subspace iteration until the residual of the leading pair is below TRACKING; the error is of the order of its
    square. The longest row of the matrix replaces the first vector of the basis: a new large value may be orthogonal to
    it.
    """

    def product(rows: Tensor) -> Tensor:
        return matmul(matmul(rows, weight.mT), weight)

    longest = torch.linalg.vector_norm(weight, dim=1).argmax()
    basis = orthonormal(torch.cat([weight[longest][None], basis[1:]]))
    top = 0.0
    for _ in range(TRACKING_SWEEPS):
        image = product(basis)
        pairs = ritz(image, basis)
        if pairs is None:
            return Found(basis, float(torch.linalg.matrix_norm(weight.double(), 2)))
        values, rotation = pairs
        basis, image = rotation @ basis, rotation @ image
        top = max(values[-1].item(), 0.0)
        if float(torch.linalg.vector_norm(image[-1] - top * basis[-1])) <= TRACKING * top:
            break
        edge = max(values[0].item(), LOWEST_EDGE * top)
        filtered = chebyshev(product, basis, image, edge, gentle(TRACKING_DEGREE, top, edge))
        basis = orthonormal(filtered)
    return Found(basis, top**0.5)


def clip_few(of: Search) -> Found | None:
    """Clip at the bound, or None if the leading values cannot be told from the rest in a few sweeps."""
    weight, basis, bound, known, norm, edge = of
    assert bound is not None
    squared = bound * bound
    trusted = known if known is not None and known.level < bound else None
    gram = None if trusted else matmul(weight.mT, weight)

    def product(rows: Tensor) -> Tensor:
        return matmul(matmul(rows, weight.mT), weight) if gram is None else matmul(rows, gram)

    theta, image = [edge], product(basis)
    for degree in DEGREES if edge else (0, *DEGREES):
        if degree:
            basis = orthonormal(chebyshev(product, basis, image, edge, gentle(degree, theta[0], edge)))
            image = product(basis)
        pairs = ritz(image, basis)
        if pairs is None:
            return None
        values, rotation = pairs
        basis, image = rotation @ basis, rotation @ image
        residuals = torch.addcmul(image, values[:, None], basis, value=-1).square_().sum(1)
        theta, errors = values.tolist()[::-1], list(accumulate(residuals.tolist()[::-1], initial=0.0))
        if theta[0] > FURTHEST**2 * squared and weight.dtype == torch.float32:
            return None
        edge = max(min(theta[-1], squared), 1e-12 * squared)
        saturated = sum(t > squared for t in theta)
        if saturated == len(theta):
            return None
        if errors[saturated] <= (ERROR * bound * norm) ** 2:
            proven = _split(theta, errors, saturated, squared, trusted)
            if proven is not None and (gram is None or _holds(gram, basis, values, proven)):
                break
        if degree and gram is None:
            trusted, gram = None, matmul(weight.mT, weight)
    else:
        return None
    clipped, sigma_1 = None, theta[0] ** 0.5 if errors[1] <= (TRACKING * theta[0]) ** 2 else nan
    if saturated:
        top, sigma = basis[-saturated:], values[-saturated:, None].sqrt()
        clipped = torch.addmm(weight, (matmul(top, weight.mT) * (1 - bound / sigma)).mT, top, alpha=-1)
        if theta[0] > AGAIN**2 * squared and weight.dtype == torch.float32:
            rounding = 1e-6 * theta[0] ** 0.5
            less = Above(proven.number, proven.level + rounding)
            again = clip_few(Search(clipped, basis, bound, less, norm))
            return again and again._replace(
                weight=clipped if again.weight is None else again.weight, saturated=saturated
            )
    largest = (
        bound * (1 + COUPLING) if saturated else (max(theta[0], proven.level**2) + errors[-1] ** 0.5) ** 0.5
    )
    return Found(basis, bound if saturated else sigma_1, clipped, saturated, edge, proven, largest)


def _split(
    theta: list[float], errors: list[float], saturated: int, squared: float, known: Above | None
) -> Above | None:
    """Where to cut the spectrum (`theta` descending): number of leading vectors U, level that the rest is below."""
    if known is not None:
        count, e = known.number, errors[min(known.number, len(theta))] ** 0.5
        level = known.level**2 + e
        inside = saturated <= count < len(theta) and (count == 0 or theta[count - 1] > level)
        proven = inside and level < squared and e * e <= COUPLING * squared * (squared - level)
        return Above(count, level**0.5) if proven else None
    best, widest = None, NARROWEST * squared
    for count in range(saturated, len(theta)):
        upper = squared if count == saturated else theta[count - 1]
        gap = upper - theta[count]
        level = theta[count] + gap / 2
        if gap > widest and errors[count] <= COUPLING * squared * (squared - level):
            best, widest = Above(count, max(level, 0.0) ** 0.5), gap
    return best


def _holds(gram: Tensor, vectors: Tensor, values: Tensor, claim: Above) -> bool:
    """Whether a Cholesky factorisation proves the claim for the matrix with this Gram matrix."""
    deflated = gram.neg()
    if claim.number:
        top = vectors[-claim.number :]
        deflated.addmm_((top * values[-claim.number :, None]).mT, top)
    deflated.diagonal().add_(claim.level**2)
    return int(torch.linalg.cholesky_ex(deflated).info) == 0
