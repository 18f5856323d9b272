"""P_delta of one matrix in the cheapest form that is provably exact."""

from dataclasses import dataclass

import torch
from torch import Tensor

from spectralgru.projection.answers import Question
from spectralgru.projection.clip import FLOAT32_RANGE, FLOAT64_RANGE, Clipped, Solver, Whole, clip
from spectralgru.projection.state import MANY, STEADY, TOLERANCE, MatrixState, Outcome, learn
from spectralgru.projection.subspace import AGAIN, Found, Search

# The clip aims this far (relative) inside the bound, or by the resolution of the matrix's type if that is coarser. No
# singular value may end above the bound by more than TOLERANCE.
MARGIN = 5e-6
# After a failure the subspace method is not tried for 2, 4, 8, ... calls, up to this many.
LONGEST_PAUSE = 64
# After a change smaller than this share of the bound, the last subspace may be good enough as it is.
SMALL_STEP = 0.02


@dataclass
class Projection:
    """One matrix in one call."""

    weight: Tensor  # [n, n], contiguous, at least float32
    bound: float
    target: float  # less a margin
    memory: MatrixState
    norm: float  # Frobenius
    distance: float  # how far it has moved
    method: Solver

    def begin(self) -> Question | Outcome:
        """The cheapest form that may be enough."""
        weight, memory, bound = self.weight, self.memory, self.bound
        if memory.basis is not None:
            memory.basis = memory.basis.to(weight)  # the matrix may have a new type or device
        if not (self.norm < float("inf") or bool(weight.isfinite().all())):
            memory.known, memory.largest, memory.drift = None, float("inf"), float("inf")
            return Outcome()
        # The added terms cover the rounding of the update, which `distance` does not include.
        memory.move(self.distance * (1 + 1e-5) + 1e-7 * self.norm)
        if memory.basis is not None and memory.largest <= bound * (1 + TOLERANCE):
            if memory.drift <= STEADY * memory.sigma:
                return Outcome(float(torch.linalg.vector_norm(weight @ memory.basis[-1])))
            return Question(Search(weight, memory.basis), self._tracked)
        few_before = memory.basis is not None and memory.saturated <= MANY * len(weight)
        memory.pause -= 1
        if self.method == "auto" and few_before and memory.pause < 0 and self._can_be_squared():
            assert memory.basis is not None
            edge = memory.edge if self.distance > SMALL_STEP * bound else 0.0
            search = Search(weight, memory.basis, self.target, memory.known, self.norm, edge)
            return Question(search, self._searched)
        return self._whole()

    def _can_be_squared(self) -> bool:
        return self.norm < FLOAT64_RANGE * self.target

    def _tracked(self, found: Found) -> Outcome:
        memory = self.memory
        memory.basis, memory.sigma, memory.drift = found.basis, found.sigma, 0.0
        return Outcome(found.sigma)

    def _searched(self, few: Found | None) -> Question | Outcome:
        memory = self.memory
        memory.failures = memory.failures + 1 if few is None else 0
        memory.pause = min(2**memory.failures, LONGEST_PAUSE) if few is None else 0
        if few is None:
            return self._whole()
        memory.basis, memory.edge, memory.known = few.basis, few.edge, few.known
        memory.largest, memory.saturated = few.largest, few.saturated
        memory.sigma, memory.drift = few.sigma, 0.0
        return Outcome(self.target if few.saturated else few.sigma, few.saturated, few.weight)

    def _whole(self) -> Question | Outcome:
        """By a full decomposition, in float64 where clipping twice in float32 would not suffice."""
        if self.method != "svd" and self.weight.dtype == torch.float32 and self._can_be_squared():
            return Question(Whole(self.weight, self.target), self._decomposed)
        return self._double()

    def _decomposed(self, result: Clipped) -> Question | Outcome:
        target, memory = self.target, self.memory
        largest = float(result.sigma[0, 0])
        if not largest <= FLOAT32_RANGE * target:
            return self._double()
        outcome = learn(result, target, memory)
        if largest <= AGAIN * target or outcome.weight is None:
            return outcome
        assert memory.basis is not None
        again = Search(outcome.weight, memory.basis, target, memory.known, self.norm)
        return Question(again, lambda few: self._clipped_again(outcome, few))

    def _clipped_again(self, first: Outcome, few: Found | None) -> Question | Outcome:
        if few is None:
            return self._double()
        memory = self.memory
        memory.basis, memory.known, memory.largest = few.basis, few.known, few.largest
        return Outcome(self.target, first.saturated, first.weight if few.weight is None else few.weight)

    def _double(self) -> Question | Outcome:
        if self.method == "svd":
            return self._by_svd()
        return Question(Whole(self.weight.double(), self.target), self._decomposed_double)

    def _decomposed_double(self, result: Clipped) -> Outcome:
        exact = self.method == "eigh" or float(result.sigma[0, 0]) <= FLOAT64_RANGE * self.target
        return learn(result, self.target, self.memory) if exact else self._by_svd()

    def _by_svd(self) -> Outcome:
        double = self.weight.double()
        clipped = clip(double[None], double.new_full((1,), self.target), "svd")
        return learn(clipped, self.target, self.memory)
