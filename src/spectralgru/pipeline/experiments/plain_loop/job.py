"""What determines a run of the plain loop, as plain data; needs no torch."""

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from spectralgru.files import sha256_of_all
from spectralgru.pipeline.params.experiments import Optimizer
from spectralgru.resources import PACKAGE
from spectralgru.training.settings import Job, Replica

Cell = Literal["GRU", "LSTM", "paper"]  # torch.nn's, or the paper's GRU

SOURCES = (
    "constraint.py",
    "diagnosis/lyapunov.py",
    "pipeline/experiments/plain_loop/*.py",
)


@dataclass(frozen=True)
class PlainJob(Job):
    """A job for the plain loop, which trains its runs one after another."""

    cell: Cell = "GRU"
    optimizer: Optimizer = "SGD"
    clip: float | None = None  # threshold of clipping in addition to the method
    gates: float | None = None  # bound on the gates' matrices in addition to the constraint

    def settings(self) -> dict[str, Any]:
        """What the runs share, as JSON-ready data."""
        own = {name: getattr(self, name) for name in ("cell", "optimizer", "clip", "gates")}
        return super().settings() | {"loop": "plain"} | own

    def key(self, replica: Replica, data_sha256: str) -> str:
        """Hash of everything that determines the run of `replica`: settings, data and code."""
        determined = super().key(replica, data_sha256) + _code_sha256()
        return hashlib.sha256(determined.encode()).hexdigest()


@cache
def _code_sha256() -> str:
    return sha256_of_all(PACKAGE, SOURCES)
