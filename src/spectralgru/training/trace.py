"""The per-step trace of a run, thinned so that no burst is lost."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spectralgru.records import STEP_COLUMNS

MAX_ROWS = 4000


class Trace:
    """Maxima of the gradient norm and of sigma_1 over intervals of steps, for every replica; one row per interval.

    Both maxima include every step; spectral radius and growth are measured at the last step of each interval.
    """

    def __init__(self, replicas: int, every: int, total_steps: int, device: torch.device) -> None:
        self.every = max(every, -(-total_steps // MAX_ROWS))
        self.rows: list[list[dict[str, float]]] = [[] for _ in range(replicas)]
        self.grad_norm = torch.zeros(replicas, device=device)
        self.sigma_max = torch.zeros(replicas, device=device)

    def add(self, grad_norm: Tensor, sigma_max: Tensor) -> None:
        """Add one step's values [R]."""
        self.grad_norm = torch.maximum(self.grad_norm, grad_norm)
        self.sigma_max = torch.maximum(self.sigma_max, sigma_max)

    def due(self, step: int) -> bool:
        """Whether an interval ends at this step (1-based)."""
        return step % self.every == 0

    def close(
        self,
        step: int,
        epoch: int,
        spectral_radius: Tensor,
        growth: Tensor | None = None,
        replicas: Sequence[int] | None = None,
    ) -> None:
        """Add a row for `replicas` (None: all) and begin a new interval for them; `growth` None: not measured."""
        which = list(range(len(self.rows)) if replicas is None else replicas)
        unknown = torch.full_like(self.sigma_max, torch.nan)
        measured = [value.to(unknown) for value in (spectral_radius, unknown if growth is None else growth)]
        seen = torch.stack([self.grad_norm, self.sigma_max, *measured], 1).tolist()
        for r in which:
            row: dict[str, float] = {"step": step, "epoch": epoch}
            row |= zip(STEP_COLUMNS[2:], seen[r], strict=True)
            self.rows[r].append(row)
        self.grad_norm[which] = self.sigma_max[which] = 0.0

    def keep(self, replicas: Sequence[int]) -> None:
        """Drop all replicas but these."""
        index = list(replicas)
        self.rows = [self.rows[r] for r in index]
        self.grad_norm, self.sigma_max = self.grad_norm[index], self.sigma_max[index]
