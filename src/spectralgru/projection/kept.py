"""One square block of a recurrent weight that is kept below a bound, and its saved state."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import torch
from torch import Tensor

from spectralgru.errors import InputError
from spectralgru.projection.tracked import ProjectionReport, SpectralProjection, frobenius


@dataclass
class Kept:
    """A block [R, H, H] that is projected after every step, and what is known of it."""

    projection: SpectralProjection
    last: Tensor  # as the last projection left it

    def project_(self, matrix: Tensor, bound: float) -> ProjectionReport:
        """Bring the singular values of `matrix` down to `bound`, in place; NaN: leave it alone."""
        if isnan(bound):
            nothing = torch.zeros(len(matrix), dtype=torch.int64, device=matrix.device)
            return ProjectionReport(nothing + nan, nothing, nothing > 0)
        # Subtracted in the wider of the two types, so that the rounding of a conversion counts as movement.
        moved = frobenius(matrix - self.last.to(matrix.device))
        self.projection.max_sv = [bound] * len(matrix)
        report = self.projection.project_(matrix, moved)
        self.last = self.last.to(matrix).copy_(matrix)
        return report

    def settle(self, matrix: Tensor) -> None:
        """Set `matrix` to the result of the last projection if it differs only by the rounding of another one."""
        last = self.last.to(matrix)
        if float((matrix - last).norm()) <= 1e-5 * float(last.norm()):
            matrix.copy_(last)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue bit for bit."""
        return {"projection": self.projection.state_dict(), "last": self.last.clone()}


def restore(kept: Mapping[str, Kept], state: Any) -> None:
    """Continue from the `state_dict()` of each. If one does not fit, raises InputError and changes nothing."""
    if not isinstance(state, dict) or state.keys() != kept.keys():
        names = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise InputError(f"state for {names} does not fit a module with {sorted(kept)}")
    read = {}
    for name, one in kept.items():
        try:
            read[name] = _read(one, state[name])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise InputError(
                f"{name}: {what}; load what state_dict() of a constraint on a network of this size returned"
            ) from None
    for name, one in kept.items():
        one.projection, one.last = read[name]


def _read(kept: Kept, state: Any) -> tuple[SpectralProjection, Tensor]:
    last = state["last"]
    if last.shape != kept.last.shape:
        raise ValueError(
            f"the state is of a block of shape {list(last.shape)}, the module's is {list(kept.last.shape)}"
        )
    projection = SpectralProjection(torch.ones(len(last)), kept.projection.method)
    projection.load_state_dict(state["projection"], last.shape[-1])
    return projection, last.clone()
