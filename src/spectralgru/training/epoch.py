"""The numbers of an epoch so far, and its row in the history."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from spectralgru.training.evaluate import metric
from spectralgru.training.models import Kind

NOT_FINITE = "loss, gradient, update or weight not finite"
NOT_VALID = "validation loss not finite"


@dataclass(frozen=True)
class Divergence:
    """Where and why a run was given up."""

    epoch: int
    step: int
    reason: str


@dataclass
class EpochCounters:
    """Sums and maxima over the steps of an epoch; every tensor is [R]."""

    loss: Tensor
    norm: Tensor
    norm_max: Tensor
    diverged_at: Tensor  # first step with a number that is not finite; 0: none
    steps: int = 0
    count: float = 0.0  # tokens or time steps that the loss was summed over

    @classmethod
    def begin(
        cls, runs: int, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> "EpochCounters":
        """Counters of an epoch that has not begun."""
        loss, norm, norm_max, diverged_at = torch.zeros(4, runs, device=device, dtype=dtype)
        return cls(loss, norm, norm_max, diverged_at)

    def add(self, loss: Tensor, norm: Tensor, sigma: Tensor, step: int, count: float) -> None:
        """Add a step's values [R]; `step` counts from the beginning of the training."""
        self.loss += loss
        self.norm += norm
        self.norm_max = torch.maximum(self.norm_max, norm)
        bad = ~(loss.isfinite() & norm.isfinite() & sigma.isfinite())
        self.diverged_at = torch.where(bad & (self.diverged_at == 0), step, self.diverged_at)
        self.steps += 1
        self.count += count

    def row(self, run: int, kind: Kind, valid_loss: float) -> dict[str, float]:
        """The columns of the history that every training loop fills."""
        return {
            "train_loss": float(self.loss[run]) / self.count,
            "valid_loss": valid_loss,
            "valid_metric": metric(kind, valid_loss),
            "grad_norm_mean": float(self.norm[run]) / self.steps,
            "grad_norm_max": float(self.norm_max[run]),
        }

    def keep(self, runs: Sequence[int]) -> "EpochCounters":
        """Keep only these runs."""
        i = list(runs)
        tensors = self.loss[i], self.norm[i], self.norm_max[i], self.diverged_at[i]
        return EpochCounters(*tensors, self.steps, self.count)

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return asdict(self)
