"""The last steps of a training as numbers, and the rule that says which step is an explosion."""

from collections import deque
from dataclasses import dataclass
from math import isfinite
from statistics import median
from typing import Any, TypedDict

import torch
from torch import Tensor

from spectralgru.errors import InputError

# Medians are recomputed after this many steps; while the ring fills, after every step.
RENEWED = 10


@dataclass(frozen=True)
class SpikeRule:
    """A step is an explosion if its loss or gradient is not finite, or far above those of the steps before.

    A negative loss is never a spike.

    Attributes:
        gradient: the gradient's norm must exceed its median over the ring by this factor.
        loss: the loss must exceed its median by this factor.
        after: number of steps that the ring must hold before the rule applies.
    """

    gradient: float = 10.0
    loss: float = 3.0
    after: int = 20

    def __post_init__(self) -> None:
        if not (self.gradient > 1 and self.loss > 1 and self.after >= 1):
            raise InputError(f"{self}: gradient and loss must be above 1, after at least 1")

    def verdict(self, now: "Step", usual: "Usual") -> str:
        """Why a step is an explosion; empty if it is not.

        Args:
            now: the step.
            usual: medians of the steps before.
        """
        values = {name: getattr(now, name) for name in _SAID}
        for name, value in values.items():
            if value is not None and not isfinite(value):
                return f"the {_SAID[name]} is not finite"
        for name, value in values.items():
            factor, median_of = self.loss if name == "loss" else self.gradient, usual.medians.get(name, 0.0)
            if value is not None and usual.count >= self.after and value > factor * median_of > 0:
                times = f"{value / median_of:.3g} times its median over {usual.count} steps"
                return f"the {_SAID[name]} is {value:.4g}, {times}"
        return ""


_SAID = {
    "norm": "gradient's norm",
    "unclipped": "recurrent gradient's norm, before any clipping,",
    "loss": "loss",
}


@dataclass
class Usual:
    """What is usual among the steps of one optimiser in the ring."""

    count: int
    medians: dict[str, float]

    @classmethod
    def of(cls, steps: list["Step"]) -> "Usual":
        """The medians of their finite values."""
        known = {
            name: [v for s in steps if (v := getattr(s, name)) is not None and isfinite(v)] for name in _SAID
        }
        return cls(len(steps), {name: median(values) for name, values in known.items() if values})


@dataclass
class Step:
    """The measurements of one step, before the weights change; tensors stay on their device."""

    step: int
    optimizer: int  # which one, counted from 0
    loss: float | None
    norm: float  # of the gradient, as the optimiser sees it
    unclipped: float | None  # of the recurrent weights' gradient, as the backward pass left it
    gradients: list[float]  # norm for each parameter; NaN: no gradient, or another optimiser's
    weights: list[float]  # norm of each parameter
    inputs: float | Tensor  # root mean square of the model's first floating-point input
    spectra: dict[str, dict[str, Tensor]]  # as followed, at step `seen`
    seen: int
    projections: dict[str, Any]  # of the constraint after the step before: sigma_max, saturated

    def plain(self) -> "PlainStep":
        """The step as numbers and lists."""
        plain: Any = vars(self) | {
            "inputs": float(self.inputs),
            "spectra": {n: {k: float(v) for k, v in s.items()} for n, s in self.spectra.items()},
            "projections": {
                name: {"sigma_max": report.sigma_max.tolist(), "saturated": report.saturated.tolist()}
                for name, report in self.projections.items()
            },
        }
        step: PlainStep = plain
        return step


class PlainStep(TypedDict):
    """A `Step` as numbers and lists, as in a recording."""

    step: int
    optimizer: int
    loss: float | None
    norm: float
    unclipped: float | None
    gradients: list[float]
    weights: list[float]
    inputs: float
    spectra: dict[str, dict[str, float]]
    seen: int
    projections: dict[str, Any]


class Ring:
    """The last steps."""

    def __init__(self, length: int) -> None:
        self.steps: deque[Step] = deque(maxlen=length)
        self._usual: dict[int, Usual] = {}

    def add(self, step: Step, rule: SpikeRule) -> str:
        """Add a step; return the rule's verdict on it."""
        usual = self._usual.get(step.optimizer)
        if usual is None or len(self.steps) < rule.after + RENEWED or step.step % RENEWED == 0:
            mine = [s for s in self.steps if s.optimizer == step.optimizer]
            usual = self._usual[step.optimizer] = Usual.of(mine)
        verdict = rule.verdict(step, usual)
        self.steps.append(step)
        return verdict


def norms(tensors: list[Any]) -> list[Tensor]:
    """Frobenius norms, in float32 at least."""
    dense = [t.coalesce().values() if t.is_sparse else t for t in tensors]  # an embedding's gradient
    wide = torch.float32 if any(t.dtype in (torch.float16, torch.bfloat16) for t in dense) else None
    return list(torch._foreach_norm(dense, 2.0, dtype=wide)) if dense else []
