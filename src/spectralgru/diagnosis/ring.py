"""The last steps of a training in numbers, and the rule by which one of them is an explosion."""

from collections import deque
from dataclasses import dataclass
from math import isfinite, nan
from statistics import median
from typing import Any

import torch
from torch import Tensor

from spectralgru.errors import InputError


@dataclass(frozen=True)
class SpikeRule:
    """A step is an explosion when a loss or gradient is not finite, or far above those of the steps before.

    Far above: the norm of the gradient more than `gradient` times, or the loss more than `loss` times the median of the
    steps in the ring, once `after` of them are there. A negative loss is no spike.
    """

    gradient: float = 10.0
    loss: float = 3.0
    after: int = 20

    def __post_init__(self) -> None:
        if not (self.gradient > 1 and self.loss > 1 and self.after >= 1):
            raise InputError(f"{self}: gradient and loss must be above 1, after at least 1")

    def verdict(self, now: "Step", before: list["Step"]) -> str:
        """Why `now` is an explosion; empty if it is none."""
        for name, value in (
            ("loss", now.loss),
            ("gradient's norm", now.norm),
            ("gradient's norm", now.unclipped),
        ):
            if value is not None and not isfinite(value):
                return f"the {name} is not finite"
        for name, factor, attribute in (
            ("gradient's norm", self.gradient, "norm"),
            ("recurrent gradient's norm, before any clipping,", self.gradient, "unclipped"),
            ("loss", self.loss, "loss"),
        ):
            past = [v for step in before if (v := getattr(step, attribute)) is not None and isfinite(v)]
            value, usual = getattr(now, attribute), median(past) if past else nan
            if value is not None and len(past) >= self.after and value > factor * usual > 0:
                return (
                    f"the {name} is {value:.4g}, {value / usual:.3g} times its median over {len(past)} steps"
                )
        return ""


@dataclass
class Step:
    """What was measured in one step, before the weights were changed; tensors stay where they are."""

    step: int
    optimizer: int  # which one, counted from 0
    loss: float | None
    norm: float  # of the gradient, as the optimiser sees it
    unclipped: float | None  # of the recurrent weights' gradient, as the backward pass left it
    gradients: Tensor  # [P], the norm for each parameter; NaN: not this optimiser's, or none
    weights: Tensor  # [P], norm of each parameter
    inputs: float | Tensor  # root mean square of the model's first floating-point input
    spectra: dict[str, dict[str, Tensor]]  # as followed, at step `seen`
    seen: int
    projections: dict[str, Any]  # of the constraint after the step before: sigma_max, saturated

    def plain(self) -> dict[str, Any]:
        """As numbers and lists."""
        fields = dict(vars(self))
        for name in ("gradients", "weights"):
            fields[name] = fields[name].tolist()
        fields["inputs"] = float(self.inputs)
        fields["spectra"] = {n: {k: float(v) for k, v in s.items()} for n, s in self.spectra.items()}
        fields["projections"] = {
            name: {"sigma_max": report.sigma_max.tolist(), "saturated": report.saturated.tolist()}
            for name, report in self.projections.items()
        }
        return fields


class Ring:
    """The last steps."""

    def __init__(self, length: int) -> None:
        self.steps: deque[Step] = deque(maxlen=length)

    def add(self, step: Step, rule: SpikeRule) -> str:
        """One more step; the rule's verdict on it."""
        verdict = rule.verdict(step, [s for s in self.steps if s.optimizer == step.optimizer])
        self.steps.append(step)
        return verdict


def norms(tensors: list[Tensor]) -> list[Tensor]:
    """Frobenius norms, in float32 at least."""
    if any(t.layout != torch.strided for t in tensors):  # an embedding's sparse gradient
        tensors = [t.coalesce().values() if t.is_sparse else t for t in tensors]
    wide = torch.float32 if any(t.dtype in (torch.float16, torch.bfloat16) for t in tensors) else None
    return list(torch._foreach_norm(tensors, 2.0, dtype=wide)) if tensors else []
