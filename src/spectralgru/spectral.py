"""Singular values kept below a bound: the projection P_delta of Kanai et al. (NIPS 2017), and stability.

P_delta(W) replaces every singular value above 2 - delta by 2 - delta; it is the Frobenius-nearest matrix with
no singular value above 2 - delta.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from spectralgru.errors import InputError

Method = Literal["auto", "svd", "eigh"]
METHODS: tuple[Method, ...] = ("auto", "svd", "eigh")
# The clip aims this far (relative) inside the bound, so that rounding to float32 carries no value out.
MARGIN = 3e-7
# Above this ratio of the largest singular value to the bound, squaring loses too many digits.
GRAM_RANGE = 1e3
BLOCK = 8


def jacobian_at_origin(weight: Tensor) -> Tensor:
    """J = W_hh / 4 + I / 2, the GRU linearised at h = 0 for x = 0 (paper, Lemma on the fixed point).

    Args:
        weight: candidate's recurrent weights W_hn [..., H, H].
    """
    return weight / 4 + torch.eye(weight.shape[-1], dtype=weight.dtype, device=weight.device) / 2


def spectral_radius(matrix: Tensor) -> Tensor:
    """Largest absolute eigenvalue |lambda_1| of [..., n, n], shape [...]; NaN where not finite."""
    finite = matrix.isfinite().all(-1).all(-1)
    radius = torch.linalg.eigvals(torch.where(finite[..., None, None], matrix, 0)).abs().amax(-1)
    return torch.where(finite, radius, torch.nan)


def is_stable(weight: Tensor) -> Tensor:
    """Whether a GRU with candidate weights W_hn [..., H, H] is stable at the origin, |lambda_1(J)| < 1."""
    return spectral_radius(jacobian_at_origin(weight)) < 1


def clip_singular_values(weight: Tensor, max_sv: float | Tensor, method: Method = "auto") -> Tensor:
    """Frobenius-nearest matrix whose singular values are all at most `max_sv`.

    Computed in float64 whatever the type of `weight`.

    Args:
        weight: [..., n, m].
        max_sv: the bound, positive; a number or a tensor [...]; infinity leaves a matrix as it is.
        method: "svd", the definition; "eigh", from the eigenvectors of the Gram matrix, several times as
            fast; "auto", "eigh" wherever it is exact.

    Raises:
        InputError: a bound that is not positive, an entry that is not finite, an unknown method.
    """
    if method not in METHODS:
        raise InputError(f"method={method!r}: unknown; use one of {', '.join(METHODS)}")
    if not weight.isfinite().all():
        raise InputError(
            f"the weight {list(weight.shape)} has entries that are not finite; training has diverged"
        )
    bound = torch.as_tensor(max_sv, dtype=torch.float64, device=weight.device).expand(weight.shape[:-2])
    if not (bound > 0).all():
        raise InputError(f"max_sv={max_sv}: must be positive")
    with torch.no_grad():
        flat = weight.double().reshape(-1, *weight.shape[-2:])
        clipped = _clip(flat, bound.reshape(-1), method)[0]
    return clipped.view_as(weight).to(weight.dtype)


def _clip(weight: Tensor, bound: Tensor, method: Method) -> tuple[Tensor, Tensor]:
    """Clipped matrices and (descending) singular values before that, of float64 [N, n, m] with bounds [N]."""
    if method == "svd":
        return _clip_svd(weight, bound)
    wide = weight.shape[1] < weight.shape[2]
    tall = weight.mT if wide else weight
    values, vectors = torch.linalg.eigh(tall.mT @ tall)
    sigma = values.clamp_min(0).sqrt().flip(-1)
    # W - sum_i (1 - c / sigma_i) (W v_i) v_i^T touches nothing but the values above the bound.
    excess = (1 - bound[:, None] / sigma.flip(-1)).clamp_min(0)
    clipped = tall - (tall @ (vectors * excess.unsqueeze(-2))) @ vectors.mT
    if method == "auto":
        rough = sigma[:, 0] > GRAM_RANGE * bound
        if rough.any():
            clipped[rough], sigma[rough] = _clip_svd(tall[rough], bound[rough])
    return clipped.mT if wide else clipped, sigma


def _clip_svd(weight: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    u, sigma, vh = torch.linalg.svd(weight, full_matrices=False)
    return (u * sigma.minimum(bound[:, None]).unsqueeze(-2)) @ vh, sigma


@dataclass(frozen=True)
class ProjectionReport:
    """What one call of `SpectralProjection.project_` found and did, per replica."""

    sigma_max: Tensor  # [R] largest singular value after the call; NaN for a matrix that is not finite
    saturated: Tensor  # [R] int64, how many singular values were above the bound and are now at it
    projected: Tensor  # [R] bool, whether the matrix was changed


class SpectralProjection:
    """Keeps R matrices, one a replica, below their bounds, step after step.

    By Weyl's inequality the largest singular value grows by at most the Frobenius norm of an update: while
    the last known value plus the updates since stays below the bound, nothing has to be computed.
    """

    def __init__(self, max_sv: Tensor, method: Method = "auto") -> None:
        """Start without knowledge of the matrices.

        Args:
            max_sv: bounds [R], positive; infinity for a replica without constraint, which is only watched.
            method: see `clip_singular_values`.
        """
        if method not in METHODS:
            raise InputError(f"method={method!r}: unknown; use one of {', '.join(METHODS)}")
        if max_sv.dim() != 1 or not (max_sv > 0).all():
            raise InputError(f"max_sv={max_sv.tolist()}: must be a vector of positive bounds, one a replica")
        self.method = method
        self.max_sv = max_sv.detach().double()
        self._above = torch.full_like(self.max_sv, torch.inf)  # no singular value is above this
        self._basis: Tensor | None = None  # [R, n, BLOCK], warm start of the right singular vectors

    @torch.no_grad()
    def project_(self, weight: Tensor, update_norm: Tensor | None = None) -> ProjectionReport:
        """Clip the singular values of each matrix at its bound, in place.

        Args:
            weight: [R, n, n], may be a view.
            update_norm: [R], at least the Frobenius norm of each matrix's change since the last call; None if
                unknown.
        """
        if weight.dim() != 3 or weight.shape[0] != len(self.max_sv):
            raise InputError(f"weight has shape {list(weight.shape)}; expected [{len(self.max_sv)}, n, n]")
        bound = self.max_sv = self.max_sv.to(weight.device)
        above = self._above.to(weight.device)
        above = torch.full_like(above, torch.inf) if update_norm is None else above + update_norm.double()
        finite = weight.isfinite().all(-1).all(-1)
        sigma_max = self._track(weight, finite)
        saturated = torch.zeros_like(bound, dtype=torch.int64)
        todo = (finite & bound.isfinite() & ~(above <= bound)).nonzero().squeeze(-1)
        if len(todo):
            clipped, sigma = _clip(weight[todo].double(), bound[todo] * (1 - MARGIN), self.method)
            over = sigma > bound[todo, None]
            changed = over[:, 0]
            weight[todo[changed]] = clipped[changed].to(weight.dtype)
            saturated[todo] = over.sum(-1)
            sigma_max[todo] = sigma[:, 0].minimum(bound[todo] * (1 - MARGIN))
            above[todo] = sigma_max[todo]
        self._above = torch.where(finite, above, torch.inf)
        return ProjectionReport(torch.where(finite, sigma_max, torch.nan), saturated, saturated > 0)

    def _track(self, weight: Tensor, finite: Tensor) -> Tensor:
        """Estimate of the largest singular values by subspace iteration from the last call's basis."""
        replicas, _, n = weight.shape
        weight = torch.where(finite[:, None, None], weight, 0)
        sweeps = 1
        if self._basis is None:
            # One start for all, so that a replica does not depend on its companions.
            start = torch.randn(n, min(BLOCK, n), generator=torch.Generator().manual_seed(0))
            self._basis = start.to(weight).expand(replicas, -1, -1)
            sweeps = 20
        basis = self._basis.to(weight)
        for _ in range(sweeps):
            basis = torch.linalg.qr(weight.mT @ (weight @ basis)).Q
        self._basis = basis
        image = (weight @ basis).double()
        top: Tensor = torch.linalg.eigvalsh(image.mT @ image)[:, -1]
        return top.clamp_min(0).sqrt()

    def select(self, indices: Tensor) -> None:
        """Keep only the replicas `indices` (int64 [K]), in that order."""
        self.max_sv, self._above = self.max_sv[indices], self._above[indices]
        if self._basis is not None:
            self._basis = self._basis[indices]

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-identical continuation needs."""
        return {"max_sv": self.max_sv, "above": self._above, "basis": self._basis}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`'s."""
        self.max_sv, self._above, self._basis = state["max_sv"], state["above"], state["basis"]
