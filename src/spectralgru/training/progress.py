"""What is known about one run while it trains."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from torch import Tensor

from spectralgru.training.schedule import LearningRate
from spectralgru.training.settings import Replica, Schedule

STATE = ("history", "best_epoch", "best_weights", "initial_spectrum", "seconds", "started", "replicas")


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Progress:
    """One replica's schedule, history and best model."""

    replica: Replica
    rate: LearningRate
    # On the device: the weights of the best validation epoch, or the initial ones before the first epoch.
    best_weights: dict[str, Tensor]
    initial_spectrum: list[list[float]]
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0  # of training before the run was resumed
    started: str = field(default_factory=now)
    replicas: int = 1  # number of runs that began together

    def best(self) -> dict[str, float]:
        """Number, losses and validation metric of the best epoch; empty before the first."""
        return self._figures(self.best_epoch)

    def final(self) -> dict[str, float]:
        """The same of the last epoch."""
        return self._figures(len(self.history))

    def _figures(self, epoch: int) -> dict[str, float]:
        if epoch == 0:
            return {}
        row = self.history[epoch - 1]
        names = {
            "epoch": "epoch",
            "train_loss": "train_loss",
            "valid_loss": "valid_loss",
            "valid": "valid_metric",
        }
        return {name: row[column] for name, column in names.items()}

    def finish_epoch(self, row: dict[str, float], weights: Callable[[], dict[str, Tensor]]) -> bool:
        """Add an epoch's row and, if it is the best so far, keep the weights; False when training is over."""
        self.history.append(row)
        if self.best_epoch == 0 or row["valid_loss"] < self.history[self.best_epoch - 1]["valid_loss"]:
            self.best_epoch, self.best_weights = len(self.history), weights()
        return self.rate.finish_epoch(row["valid_loss"])

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors, for a checkpoint."""
        state = {name: getattr(self, name) for name in STATE}
        return {**state, "replica": asdict(self.replica), "rate": asdict(self.rate)}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "Progress":
        """Inverse of `state_dict`."""
        rate = dict(state["rate"])
        return cls(
            replica=Replica(**state["replica"]),
            rate=LearningRate(schedule=Schedule(**rate.pop("schedule")), **rate),
            **{name: state[name] for name in STATE},
        )
