"""What is known of a matrix from one projection to the next."""

from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any

from torch import Tensor

from spectralgru.projection.clip import Clipped
from spectralgru.projection.subspace import Above

# How far (relative) a singular value may be above the bound.
TOLERANCE = 5e-7
# Until a matrix has moved by this share of sigma_1, the last leading vector still gives sigma_1.
STEADY = 2e-2
# GUARDS: vectors tracked beyond the values above the bound, at least. WIDTH: the number of vectors is a multiple of it
# (17 rows cost as much as 32). MANY: share of n above the bound from which a full decomposition is faster.
GUARDS, WIDTH, MANY = 8, 16, 1 / 8


@dataclass
class MatrixState:
    """What is known of one matrix between calls."""

    # [k, n], approximate leading right singular vectors, in ascending order of their values.
    basis: Tensor | None = None
    edge: float = 0.0  # roughly where the spectrum of W^T W outside the basis ends
    known: Above | None = None  # at most `number` singular values are above `level`
    largest: float = float("inf")  # no singular value is above this
    saturated: int = 0  # at the last call that counted them
    failures: int = 0  # of the subspace method, in a row
    pause: int = 0  # number of calls before it is tried again
    sigma: float = float("nan")  # sigma_1 when it was last computed
    drift: float = float("inf")  # how far the matrix may have moved since

    def move(self, distance: float) -> None:
        """Weyl: a change of Frobenius norm `distance` moves no singular value by more."""
        self.largest += distance
        self.drift += distance
        if self.known is not None:
            self.known = Above(self.known.number, self.known.level + distance)


@dataclass
class Outcome:
    """Result of one call for one matrix."""

    sigma_max: float = float("nan")
    saturated: int = 0
    weight: Tensor | None = None  # None: unchanged


def remembered(state: dict[str, Any], size: int | None) -> MatrixState:
    """A matrix state from its entry in `SpectralProjection.state_dict()`; `size`: n, if it is known."""
    basis, known = state["basis"], state["known"]
    if basis is not None and (basis.dim() != 2 or basis.shape[1] != (size or basis.shape[1])):
        raise ValueError(f"a basis of shape {list(basis.shape)}")
    (edge, largest), (saturated, failures, pause) = map(float, state["bounds"]), map(int, state["counts"])
    above = None if known is None else Above(int(known[0]), float(known[1]))
    copied = None if basis is None else basis.clone()
    seen = map(float, state.get("seen", ()))  # states of versions before 0.2 have none
    return MatrixState(copied, edge, above, largest, saturated, failures, pause, *seen)


def learn(result: Clipped, target: float, memory: MatrixState) -> Outcome:
    """Keep what a full decomposition says, for this call and the next ones."""
    sigma = result.sigma[0].tolist()
    saturated = sum(s > target for s in sigma)
    watched = saturated if saturated <= MANY * len(sigma) else 0
    columns = min(WIDTH * ceil((watched + GUARDS) / WIDTH), len(sigma))
    clipped = [min(s, target) for s in sigma]
    memory.basis = result.vectors[0, :, :columns].flip(-1).mT.contiguous()
    memory.edge = clipped[columns - 1] ** 2
    gaps = [a - b for a, b in pairwise(clipped[: columns + 1])]
    split = 1 + max(range(len(gaps)), key=gaps.__getitem__) if gaps else 0
    # Rounding of the Gram matrix hides singular values far below the largest.
    hidden = 1e-5 * clipped[0] ** 2
    memory.known = Above(split, (clipped[split] ** 2 + hidden) ** 0.5) if split else None
    memory.largest, memory.saturated = clipped[0] * (1 + TOLERANCE), saturated
    memory.sigma, memory.drift = clipped[0], 0.0
    return Outcome(clipped[0], saturated, result.weight[0] if saturated else None)
