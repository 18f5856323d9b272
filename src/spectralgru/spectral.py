"""Bounded singular values, by the projection P_delta of Kanai et al. (NIPS 2017), and stability.

P_delta(W) replaces every singular value above 2 - delta by 2 - delta; it is the Frobenius-nearest matrix with
no singular value above 2 - delta.
"""

import torch
from torch import Tensor

from spectralgru.errors import InputError
from spectralgru.projection.clip import SOLVERS, Solver, clip
from spectralgru.projection.tracked import ProjectionReport, SpectralProjection

__all__ = [
    "SOLVERS",
    "ProjectionReport",
    "Solver",
    "SpectralProjection",
    "clip_singular_values",
    "is_stable",
    "jacobian_at_origin",
    "spectral_radius",
]


def jacobian_at_origin(weight: Tensor) -> Tensor:
    """J = W_hh / 4 + I / 2, the GRU linearised at h = 0 for x = 0 (paper, Lemma on the fixed point).

    Args:
        weight: candidate's recurrent weights W_hn [..., H, H].

    Raises:
        InputError: the weight is not square.
    """
    _expect_square(weight)
    return weight / 4 + torch.eye(weight.shape[-1], dtype=weight.dtype, device=weight.device) / 2


def spectral_radius(matrix: Tensor) -> Tensor:
    """Largest absolute eigenvalue |lambda_1|, shape [...], at least float32; NaN where the matrix is not finite.

    Args:
        matrix: [..., n, n].

    Raises:
        InputError: the matrix is not square.
    """
    _expect_square(matrix)
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    finite = matrix.isfinite().all(-1).all(-1)
    radius = torch.linalg.eigvals(torch.where(finite[..., None, None], matrix, 0)).abs().amax(-1)
    return torch.where(finite, radius, torch.nan)


def is_stable(weight: Tensor) -> Tensor:
    """Whether a GRU without biases is stable at the origin, |lambda_1(J)| < 1; bool [...].

    Args:
        weight: candidate's recurrent weights W_hn [..., H, H].

    Raises:
        InputError: the weight is not square.
    """
    return spectral_radius(jacobian_at_origin(weight)) < 1


def clip_singular_values(weight: Tensor, max_sv: float | Tensor, method: Solver = "auto") -> Tensor:
    """Frobenius-nearest matrix whose singular values are all at most `max_sv`.

    Computed in float64 and rounded to the type of `weight`; in float16 and bfloat16 this rounding may lift a value
    above the bound.

    Args:
        weight: [..., n, m], floating point.
        max_sv: the bound, positive; a number or a tensor [...]; infinity leaves a matrix as it is.
        method: "svd", the definition; "eigh", from the eigenvectors of the Gram matrix: several times as fast, and
            exact for singular values up to 1000 times the bound; "auto", "eigh" wherever it is exact.

    Raises:
        InputError: the weight is not a floating-point matrix or not finite, a bound is not positive, or the method is
            unknown.
    """
    if method not in SOLVERS:
        raise InputError(f"method={method!r}: unknown; use one of {', '.join(SOLVERS)}")
    dense = weight.layout == torch.strided and not weight.is_meta
    if not dense or not weight.is_floating_point() or weight.dim() < 2 or not weight.numel():
        raise InputError(
            f"the weight is {weight.dtype} {list(weight.shape)}, {weight.layout} on {weight.device}; expected floating"
            " point [..., n, m], torch.strided, with values"
        )
    if not weight.isfinite().all():
        raise InputError(
            f"the weight {list(weight.shape)} has entries that are not finite; training has diverged"
        )
    bound = torch.as_tensor(max_sv, dtype=torch.float64, device=weight.device)
    try:
        bound = bound.expand(weight.shape[:-2])
    except RuntimeError as error:
        raise InputError(
            f"max_sv has shape {list(bound.shape)}; expected a number or {list(weight.shape[:-2])}, one per matrix"
        ) from error
    if not (bound > 0).all():
        raise InputError(f"max_sv={max_sv}: must be positive")
    with torch.no_grad():
        flat = weight.double().reshape(-1, *weight.shape[-2:])
        # Scaling each matrix by a power of two keeps squares from overflowing or vanishing.
        scale = torch.exp2(torch.frexp(flat.abs().amax((1, 2))).exponent.clamp(-1000, 1000).double())
        clipped = clip(flat / scale[:, None, None], bound.reshape(-1) / scale, method).weight
    return (clipped * scale[:, None, None]).view_as(weight).to(weight.dtype)


def _expect_square(matrix: Tensor) -> None:
    if matrix.dim() < 2 or matrix.shape[-1] != matrix.shape[-2] or not matrix.shape[-1]:
        raise InputError(f"the matrix has shape {list(matrix.shape)}; expected [..., n, n] with n >= 1")
