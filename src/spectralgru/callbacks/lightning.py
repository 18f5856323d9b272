"""For Lightning: `Trainer(callbacks=[SpectralConstraintCallback(delta=0.2)])`."""

from typing import Any

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    from pytorch_lightning import Callback, LightningModule, Trainer

from spectralgru.callbacks.constrained import Constrained


class SpectralConstraintCallback(Constrained, Callback):  # type: ignore[misc]  # Any, where it is not installed
    """Constrains the module during `fit`, and continues from a checkpoint bit for bit.

    Logs `Constrained.numbers` to every logger, every `log_every_n_steps` steps of the optimisers.
    """

    _logged = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Constrain the module; a checkpoint has been loaded by now."""
        self.begin(pl_module, trainer.optimizers)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Log the numbers when they are due."""
        step = trainer.global_step
        if trainer.loggers and step != self._logged and step % (trainer.log_every_n_steps or step + 1) == 0:
            numbers, self._logged = self.numbers(), step
            for logger in trainer.loggers:
                logger.log_metrics(numbers, step)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Detach, also after an error."""
        self.end()
