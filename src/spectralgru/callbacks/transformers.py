"""For the Trainer of Transformers: `Trainer(..., callbacks=[SpectralConstraintCallback(delta=0.2)])`."""

from pathlib import Path
from typing import Any
from warnings import warn

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectralgru.callbacks.constrained import Constrained
from spectralgru.files import atomic_path

FILE = "spectral_constraint.pt"


class SpectralConstraintCallback(Constrained, TrainerCallback):
    """Constrains the model during training, adds its numbers to the log, and saves its state in checkpoints.

    A Trainer calls its reporters (TensorBoard, MLflow) before the callbacks given to it. To have the numbers reported,
    too, move this callback to the front: `trainer.callback_handler.callbacks.insert(0, callback)`.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Constrain the model; a checkpoint has been loaded by now."""
        if state.global_step and (file := _file(args, state)).exists():
            self.load_state_dict(torch.load(file, weights_only=True))
        elif state.global_step:
            warn(
                f"{file}: no such file; the constraint still holds, but training will not continue exactly as it "
                "would have without the interruption",
                stacklevel=2,
            )
        model: nn.Module = given["model"]
        self.begin(model, [given["optimizer"]])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **given: Any,
    ) -> None:
        """Add the numbers to the log and to the history."""
        if self.constraint is not None and "loss" in given["logs"]:
            numbers = self.numbers()
            given["logs"].update(numbers)
            state.log_history[-1].update(numbers)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save the state, which is the same in every process, from the first one."""
        if state.is_world_process_zero:
            with atomic_path(_file(args, state)) as partial:
                torch.save(self.state_dict(), partial)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Detach."""
        self.end()


def _file(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir or ".") / f"checkpoint-{state.global_step}" / FILE
