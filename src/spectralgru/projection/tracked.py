"""P_delta after every training step, for each matrix in the cheapest form that is provably exact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spectralgru.errors import InputError
from spectralgru.projection.answers import Question, outcomes
from spectralgru.projection.batched import BatchedProjection
from spectralgru.projection.clip import SOLVERS, Solver
from spectralgru.projection.forms import MARGIN, Projection
from spectralgru.projection.state import MatrixState, Outcome, remembered


@dataclass(frozen=True)
class ProjectionReport:
    """Result of one call of `SpectralProjection.project_`, for each replica.

    Attributes:
        sigma_max: [R] sigma_1 after the call; up to 2 % too low where nothing was clipped; NaN: not finite.
        saturated: [R] int64, how many singular values were above the bound and are now at it.
        projected: [R] bool, whether the matrix was changed.
    """

    sigma_max: Tensor
    saturated: Tensor
    projected: Tensor


class SpectralProjection:
    """Keeps R matrices, one per replica, below their bounds, step after step.

    After every call sigma_1 <= max_sv (1 + 1e-6), and the matrix is within 1e-5 (relative, Frobenius) of P_delta.
    float16 and bfloat16 matrices are clipped lower by their resolution, and are exact up to it.
    """

    def __init__(self, max_sv: Tensor, method: Solver = "auto") -> None:
        """Start with no knowledge of the matrices.

        Args:
            max_sv: positive bounds [R]; infinity for a replica without a constraint, which is only tracked.
            method: "auto", the cheapest form that is exact; "svd" or "eigh", always that decomposition.
        """
        if method not in SOLVERS:
            raise InputError(f"method={method!r}: unknown; use one of {', '.join(SOLVERS)}")
        if max_sv.dim() != 1 or not (max_sv > 0).all():
            raise InputError(
                f"max_sv={max_sv.tolist()}: must be a vector of positive bounds, one per replica"
            )
        self.method = method
        self.max_sv: list[float] = max_sv.double().tolist()
        self._memories = [MatrixState() for _ in self.max_sv]
        self._batched: BatchedProjection | None = None  # in place of the memories, on a GPU

    @torch.no_grad()
    def project_(self, weight: Tensor, update_norm: Tensor | None = None) -> ProjectionReport:
        """Clip the singular values of each matrix at its bound, in place.

        Args:
            weight: [R, n, n], may be a view.
            update_norm: [R], at least the Frobenius norm of each matrix's change since the last call; None if
                unknown.
        """
        if weight.dim() != 3 or weight.shape[0] != len(self.max_sv) or weight.shape[1] != weight.shape[2]:
            raise InputError(f"weight has shape {list(weight.shape)}; expected [{len(self.max_sv)}, n, n]")
        if weight.is_cuda and self.method == "auto":
            return self._together(weight)
        ended = self.outcomes_(weight, update_norm)
        return ProjectionReport(
            torch.tensor([o.sigma_max for o in ended], dtype=torch.float64, device=weight.device),
            torch.tensor([o.saturated for o in ended], device=weight.device),
            torch.tensor([o.weight is not None for o in ended], device=weight.device),
        )

    def outcomes_(self, weight: Tensor, update_norm: Tensor | None = None) -> list[Outcome]:
        """Like `project_`, but reports numbers.

        Args:
            weight: [R, n, n], may be a view, not on a GPU.
            update_norm: see `project_`.
        """
        return project_all_([(self, weight, update_norm)])[0]

    def _begin(self, weight: Tensor, update_norm: Tensor | None) -> list[Question | Outcome]:
        """What each matrix asks first, or its outcome."""
        norms = frobenius(weight).tolist()
        moved = [float("inf")] * len(norms) if update_norm is None else update_norm.tolist()
        margin = max(MARGIN, torch.finfo(weight.dtype).eps)
        states = []
        for matrix, bound, memory, norm, distance in zip(
            weight, self.max_sv, self._memories, norms, moved, strict=True
        ):
            matrix, target = matrix.to(_at_least_float32(matrix)).contiguous(), bound * (1 - margin)
            states.append(Projection(matrix, bound, target, memory, norm, distance, self.method).begin())
        return states

    def _end(self, weight: Tensor, outcomes: Sequence[Outcome]) -> None:
        """Write what has changed."""
        for matrix, outcome, memory in zip(weight, outcomes, self._memories, strict=True):
            if outcome.weight is not None:
                matrix.copy_(outcome.weight)
                if matrix.dtype != outcome.weight.dtype:
                    memory.move(float(torch.linalg.matrix_norm(matrix.to(outcome.weight) - outcome.weight)))

    def _together(self, weight: Tensor) -> ProjectionReport:
        """All matrices at once, on a GPU."""
        if self._batched is None or self._batched.bounds != self.max_sv:
            max_sv = torch.tensor(self.max_sv, dtype=torch.float64, device=weight.device)
            self._batched = self._batched or BatchedProjection(max_sv)
            self._batched.bound(max_sv)
        self._batched.start(weight)
        left = self._batched.unproven()
        if len(left):
            self._batched.clip_rest(weight, left)
        saturated = self._batched.saturated.clone()
        return ProjectionReport(self._batched.sigma_max.clone(), saturated, saturated > 0)

    def select(self, indices: Tensor | Sequence[int]) -> None:
        """Keep only some replicas.

        Args:
            indices: the ones to keep, in their new order.
        """
        kept = [int(i) for i in indices]
        self.max_sv = [self.max_sv[i] for i in kept]
        self._memories = [self._memories[i] for i in kept]
        if self._batched is not None:
            self._batched.select(torch.tensor(kept, device=self._batched.edge.device))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue bit for bit: tensors, numbers and lists of them."""
        memories = [
            {
                "basis": None if m.basis is None else m.basis.clone(),
                "known": None if m.known is None else list(m.known),
                "bounds": [m.edge, m.largest],
                "counts": [m.saturated, m.failures, m.pause],
                "seen": [m.sigma, m.drift],
            }
            for m in self._memories
        ]
        batched = None if self._batched is None else self._batched.state_dict()
        return {"max_sv": list(self.max_sv), "memories": memories, "batched": batched}

    def load_state_dict(self, state: dict[str, Any], size: int | None = None) -> None:
        """Continue from a `state_dict()`.

        Args:
            state: what `state_dict()` returned.
            size: n of the matrices, if known.

        Raises:
            ValueError: the state belongs to other matrices. LookupError, TypeError or AttributeError: it is no state.
        """
        memories = [remembered(m, size) for m in state["memories"]]
        if not len(memories) == len(self.max_sv) == len(state["max_sv"]):
            raise ValueError(f"{len(memories)} matrices, expected {len(self.max_sv)}")
        batched = None
        if state["batched"] is not None:
            batched = BatchedProjection(state["batched"]["max_sv"])
            batched.load_state_dict(state["batched"])
        self.max_sv, self._memories, self._batched = list(state["max_sv"]), memories, batched


@torch.no_grad()
def project_all_(calls: Sequence[tuple[SpectralProjection, Tensor, Tensor | None]]) -> list[list[Outcome]]:
    """`SpectralProjection.outcomes_` of several projections with their `weight` and `update_norm`, side by side."""
    begun = [projection._begin(weight, moved) for projection, weight, moved in calls]
    ended = iter(outcomes([state for of_call in begun for state in of_call]))
    of_calls = [[next(ended) for _ in of_call] for of_call in begun]
    for (projection, weight, _), of_call in zip(calls, of_calls, strict=True):
        projection._end(weight, of_call)
    return of_calls


def frobenius(matrices: Tensor) -> Tensor:
    """Frobenius norms [R] of [R, n, n], summed row by row: one float32 sum of n^2 squares would lose digits."""
    rows = torch.linalg.vector_norm(matrices, dim=2, dtype=_at_least_float32(matrices))
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
