"""Keeps W_hh of all runs and layers inside its bound: matrix by matrix on a CPU, all at once on a GPU."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spectralgru.projection.batched import BatchedProjection
from spectralgru.projection.tracked import SpectralProjection, project_all_
from spectralgru.training.checkpoint import on

COUNTED = ("projected", "skipped", "saturated", "sigma_max")


class Projector:
    """P_delta after every step of R runs, and its results; the base class of the two forms below.

    `max_sv` [R]: 2 - delta; infinite without a constraint. `sigma_max` [R] and `saturated` [R] describe the last step:
    sigma_1(W_hh), maximum over layers, and the number of singular values at the bound, all layers. `projected` and
    `skipped` [R] count the projections that were done, and that were unnecessary, since `start_epoch`.
    """

    def __init__(self, max_sv: Tensor, layers: int) -> None:
        self.max_sv, self.layers = max_sv, layers
        for name in COUNTED:
            setattr(self, name, torch.zeros_like(max_sv))

    projected: Tensor
    skipped: Tensor
    saturated: Tensor
    sigma_max: Tensor

    def start_epoch(self) -> None:
        """Count from zero."""
        self.projected.zero_()
        self.skipped.zero_()

    def start(self, weights: Sequence[Tensor], moved: Callable[[int], Tensor] | None = None) -> None:
        """Project the layers' `weights` [R, H, H] in place, without waiting for the device.

        `moved(layer)` [R]: how far (Frobenius) the step has moved them; None: unknown.
        """
        raise NotImplementedError

    def finish(self, weights: Sequence[Tensor]) -> None:
        """Do what needs the host after `start`; from then on the guarantee holds."""
        raise NotImplementedError

    def keep(self, index: Sequence[int]) -> None:
        """Drop all runs but these."""
        for name in ("max_sv", *COUNTED):
            setattr(self, name, getattr(self, name)[index])

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes during training. Format: see `checkpoint`."""
        return {name: getattr(self, name) for name in COUNTED}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, from any device."""
        for name in COUNTED:
            setattr(self, name, state[name].to(self.max_sv.device))


class MatrixProjector(Projector):
    """Each matrix by itself; most steps need no decomposition (`projection.tracked`)."""

    def __init__(self, max_sv: Tensor, layers: int) -> None:
        super().__init__(max_sv, layers)
        self.projections = [SpectralProjection(max_sv) for _ in range(layers)]

    def start(self, weights: Sequence[Tensor], moved: Callable[[int], Tensor] | None = None) -> None:
        """See `Projector`."""
        layers = project_all_(
            [
                (projection, weight, None if moved is None else moved(layer))
                for layer, (projection, weight) in enumerate(zip(self.projections, weights, strict=True))
            ]
        )
        runs = list(zip(*layers, strict=True))
        projected = torch.tensor([sum(each.weight is not None for each in run) for run in runs])
        # The maximum of a tensor, unlike Python's, is NaN if a value is.
        self.sigma_max = (
            torch.tensor([[each.sigma_max for each in run] for run in runs]).amax(1).to(self.max_sv)
        )
        self.saturated = torch.tensor([sum(each.saturated for each in run) for run in runs]).to(self.max_sv)
        self.projected += projected
        self.skipped += self.max_sv.isfinite() * (len(layers) - projected)

    def finish(self, weights: Sequence[Tensor]) -> None:
        """See `Projector`; nothing is left to do."""

    def keep(self, index: Sequence[int]) -> None:
        """See `Projector`."""
        super().keep(index)
        for projection in self.projections:
            projection.select(torch.tensor(index, device=self.max_sv.device))

    def state_dict(self) -> dict[str, Any]:
        """See `Projector`."""
        return super().state_dict() | {
            "projections": {str(layer): p.state_dict() for layer, p in enumerate(self.projections)}
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Projector`."""
        super().load_state_dict(state)
        for layer, projection in enumerate(self.projections):
            projection.load_state_dict(on(state["projections"][str(layer)], self.max_sv.device))


class BatchedProjector(Projector):
    """All matrices at once, in a fixed number of kernels that a CUDA graph can hold (`projection.batched`)."""

    def __init__(self, max_sv: Tensor, layers: int) -> None:
        super().__init__(max_sv, layers)
        self.batch = BatchedProjection(max_sv.repeat(layers))

    def start(self, weights: Sequence[Tensor], moved: Callable[[int], Tensor] | None = None) -> None:
        """See `Projector`; `moved` is not used here."""
        stacked = _stacked(weights)
        self.batch.start(stacked)
        _spread(stacked, weights)

    @torch.no_grad()
    def finish(self, weights: Sequence[Tensor]) -> None:
        """See `Projector`: read which matrices lack a proof, clip them as a whole, and count."""
        left = self.batch.unproven()
        if len(left):
            stacked = _stacked(weights)
            self.batch.clip_rest(stacked, left)
            _spread(stacked, weights)
        shape = (self.layers, len(self.max_sv))
        saturated = self.batch.saturated.view(shape)
        self.sigma_max = self.batch.sigma_max.view(shape).amax(0).to(self.max_sv.dtype)
        self.saturated.copy_(saturated.sum(0))
        self.projected += (saturated > 0).sum(0)
        self.skipped += (saturated == 0).sum(0) * self.max_sv.isfinite()

    def keep(self, index: Sequence[int]) -> None:
        """See `Projector`."""
        stacked = torch.arange(len(self.max_sv) * self.layers, device=self.max_sv.device)
        self.batch.select(stacked.view(self.layers, -1)[:, index].flatten())
        super().keep(index)

    def state_dict(self) -> dict[str, Any]:
        """See `Projector`."""
        batch = {
            name: stacked
            if stacked is None
            else stacked.view(self.layers, -1, *stacked.shape[1:]).transpose(0, 1)
            for name, stacked in self.batch.state_dict().items()
        }
        return super().state_dict() | {"batch": batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Projector`."""
        super().load_state_dict(state)
        batch = {n: v if v is None else v.transpose(0, 1).flatten(0, 1) for n, v in state["batch"].items()}
        self.batch.load_state_dict(on(batch, self.max_sv.device))


def _stacked(weights: Sequence[Tensor]) -> Tensor:
    """The matrices [L R, H, H], layer after layer; with a single layer, the weights themselves."""
    return weights[0] if len(weights) == 1 else torch.cat(list(weights))


def _spread(stacked: Tensor, weights: Sequence[Tensor]) -> None:
    if len(weights) > 1:
        for weight, part in zip(weights, stacked.chunk(len(weights)), strict=True):
            weight.copy_(part)
