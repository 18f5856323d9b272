"""What determines a run of the plain loop, as plain data; nothing here needs torch."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spectralgru.files import sha256
from spectralgru.training.settings import Job, Replica

Cell = Literal["GRU", "LSTM", "paper"]  # torch.nn's, or the paper's GRU
Optimizer = Literal["SGD", "Adam"]

SOURCES = (
    "constraint.py",
    "experiments/baselines.py",
    "experiments/plain.py",
    "experiments/plain_job.py",
    "experiments/plain_training.py",
)


@dataclass(frozen=True)
class PlainJob(Job):
    """A job for the plain loop, which trains its runs one after the other."""

    cell: Cell = "GRU"
    optimizer: Optimizer = "SGD"

    def settings(self) -> dict[str, Any]:
        """What the runs share, as JSON-ready data."""
        return super().settings() | {"loop": "plain", "cell": self.cell, "optimizer": self.optimizer}

    def key(self, replica: Replica, data_sha256: str) -> str:
        """Hash of everything that determines the run of `replica`: settings, data and code."""
        package = Path(__file__).parents[1]
        code = [sha256(package / source) for source in SOURCES]
        return hashlib.sha256("".join([super().key(replica, data_sha256), *code]).encode()).hexdigest()
