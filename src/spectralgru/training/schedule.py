"""Learning-rate schedules, with one state per replica."""

from dataclasses import dataclass

from spectralgru.training.settings import Schedule


@dataclass
class LearningRate:
    """The learning rate of one replica over its epochs."""

    schedule: Schedule
    rate: float
    best: float = float("inf")
    waited: int = 0  # epochs since the best validation loss
    epochs: int = 0

    def finish_epoch(self, valid_loss: float) -> bool:
        """Set the rate of the next epoch from this epoch's validation loss; False when training is over."""
        self.epochs += 1
        if self.schedule.kind == "decay":
            if self.epochs >= self.schedule.patience:
                self.rate /= self.schedule.factor
            return True
        if valid_loss < self.best:
            self.best, self.waited = valid_loss, 0
        else:
            self.waited += 1
        if self.waited >= self.schedule.patience:
            self.rate /= self.schedule.factor
            self.waited = 0
        return self.rate >= self.schedule.minimum
