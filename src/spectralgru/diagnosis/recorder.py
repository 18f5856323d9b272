"""A flight recorder for training: keeps the last steps, and writes a file when they end in an explosion.

recorder = ExplosionRecorder(model)
recorder.attach(optimizer)
"""

import os
from functools import partial
from math import hypot, nan
from pathlib import Path
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from spectralgru.attachment import Handle, find_optimizers, missing
from spectralgru.diagnosis.capture import captured, last_projections
from spectralgru.diagnosis.naming import plain_names
from spectralgru.diagnosis.ring import Ring, SpikeRule, Step, norms
from spectralgru.diagnosis.spectra import FollowedSpectra, model_cells
from spectralgru.diagnosis.taps import Listener, Tap, note_norm, with_ancestors
from spectralgru.diagnosis.traced import is_recurrent
from spectralgru.errors import InputError
from spectralgru.projection.blocks import named_modules

# Steps between two measurements of the spectra.
LOOK_EVERY = 20


class ExplosionRecorder(Listener):
    """Records the steps of an optimiser, and writes a file when one of them is an explosion.

    A `SpikeRule` decides what counts as one. The training loop stays as it is: the recorder sees what the model is
    called with and which gradient comes back to its output. What the file holds and what it tells: docs/symptoms.md.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: Path | str = "explosions",
        *,
        steps: int = 100,
        rule: SpikeRule | None = None,
        max_files: int = 5,
        max_bytes: int = 2**30,
    ) -> None:
        """Prepare to record.

        Args:
            model: may be wrapped (DDP) or compiled; contains GRU, LSTM or RNN modules or their cells.
            folder: for the files; created with the first one.
            steps: length of the ring, and number of steps after a file during which no other is written.
            rule: what counts as an explosion.
            max_files: largest number of recordings in the folder, including those of earlier trainings.
            max_bytes: largest size of a file. If necessary, the optimiser's state and then the batch are left out.

        Raises:
            InputError: nothing recurrent in the model, or a number out of range.
        """
        super().__init__()
        for name, value in (("steps", steps), ("max_files", max_files), ("max_bytes", max_bytes)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name}={value!r}: must be a whole number, at least 1")
        if not isinstance(model, nn.Module) or not any(is_recurrent(m) for m in model.modules()):
            raise InputError(f"{type(model).__name__}: contains no GRU, LSTM or RNN, nor a cell of one")
        self.model, self.folder, self.rule = model, Path(folder), rule or SpikeRule()
        self.max_files, self.max_bytes = max_files, max_bytes
        self.files: list[Path] = []
        self.step = 0
        self._ring, self._quiet_until, self._was_finite = Ring(steps), 0, True
        self._names = {name: module for _, name, module in named_modules(model)}
        self._parameters = plain_names(model, nn.Module.named_parameters)
        self._optimizers: list[Optimizer] = []
        self._tap, self._handles = Tap(self), list[Any]()
        self._followed, self._seen = FollowedSpectra(), -LOOK_EVERY
        self._spectra: dict[str, dict[str, Tensor]] = {}
        self._loss: Any = None
        self._noted: dict[str, Any] = {}
        self._unclipped: dict[str, Tensor] = {}

    def __reduce__(self) -> Any:
        settings: dict[str, Any] = {"steps": self._ring.steps.maxlen, "rule": self.rule}
        settings |= {"max_files": self.max_files, "max_bytes": self.max_bytes}
        return partial(ExplosionRecorder, **settings), (self.model, self.folder)

    def attach(self, optimizer: Optimizer, *others: Optimizer) -> RemovableHandle:
        """Record every step of the optimisers, until the handle's `remove()`.

        Args:
            optimizer: trains the model; a wrapper's inner optimiser is found.
            others: further optimisers, if several train it.

        Raises:
            InputError: they hold none of the model's parameters or run no hooks, or the model already has a recorder.
        """
        optimizers = [each for outer in (optimizer, *others) for each in find_optimizers(outer)]
        if len(missing(self._parameters, optimizers)) == sum(
            p.requires_grad for p in self._parameters.values()
        ):
            raise InputError(
                f"{type(optimizer).__name__} holds none of the model's parameters: attach the one that trains it"
            )
        self._tap.install(with_ancestors(self.model, is_recurrent))
        self._optimizers = optimizers
        self.device = next(iter(self._parameters.values())).device.type
        for each in optimizers:
            self._handles.append(each.register_step_pre_hook(self._before_step))
            hooks: Any = each._optimizer_step_pre_hooks
            hooks.move_to_end(self._handles[-1].id)  # after those that clip or unscale
        for name, cell in model_cells(self._names).items():
            if isinstance(cell.weight_hh, nn.Parameter) and cell.weight_hh.requires_grad:
                register: Any = cell.weight_hh.register_post_accumulate_grad_hook
                self._handles.append(register(partial(note_norm, self._unclipped, name)))
        return Handle(lambda _: self.detach(), optimizers)

    def detach(self) -> None:
        """Stop recording; the ring stays."""
        self._tap.remove()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def note(self, loss: Tensor | float | None = None, **noted: Any) -> None:
        """Add to this step what the recorder cannot see; call it before `step()`.

        Args:
            loss: of the batch.
            noted: whatever else the loss needs, by name, such as targets and masks.
        """
        self._loss = loss if loss is not None else self._loss
        self._noted.update(noted)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        position = 1 if len(args) > 1 else None
        closure = args[1] if position else kwargs.get("closure")
        if closure is None:
            self._look(optimizer)
            return None

        def watched() -> Any:  # Lightning, L-BFGS: the gradient comes within the step
            loss = closure()
            self._loss = loss if self._loss is None else self._loss
            self._look(optimizer)
            return loss

        if position:
            return (args[0], watched, *args[2:]), kwargs
        return args, {**kwargs, "closure": watched}

    @torch.no_grad()
    def _look(self, optimizer: Optimizer) -> None:
        found_inf = getattr(
            optimizer, "found_inf", None
        )  # a fused step under GradScaler, about to be skipped
        if self.is_deaf or (found_inf is not None and float(found_inf) > 0):
            return
        step = self._measured(optimizer, getattr(optimizer, "grad_scale", None))
        verdict = self._ring.add(step, self.rule)
        is_finite = "not finite" not in verdict
        if verdict and self.step >= self._quiet_until and (is_finite or self._was_finite):
            self._quiet_until = self.step + (self._ring.steps.maxlen or 0)
            try:
                self._write(verdict)
            except Exception as error:  # whatever it is, it must not end the training
                warn(f"ExplosionRecorder: {verdict}, and nothing was written: {error}", stacklevel=6)
        self._was_finite = is_finite
        self.step += 1
        self.is_over, self._loss, self._noted = True, None, {}
        self._unclipped.clear()  # the hooks hold this very dict

    def _measured(self, optimizer: Optimizer, scale: Tensor | None) -> Step:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        parameters = list(self._parameters.values())
        where = [i for i, p in enumerate(parameters) if p.grad is not None and id(p) in held]
        loss = self._loss.detach().sum() if isinstance(self._loss, Tensor) else self._loss
        measured = norms([*(parameters[i].grad for i in where), *parameters])
        measured += [*self._unclipped.values(), *([loss] if isinstance(loss, Tensor) else [])]
        device = parameters[0].device
        together = [n if n.device == device else n.to(device) for n in measured]
        values = torch.stack(together).tolist()  # the one wait for the device
        gradients, weights = [nan] * len(parameters), values[len(where) :][: len(parameters)]
        for i, value in zip(where, values, strict=False):
            gradients[i] = value if scale is None else value / float(scale)
        unclipped = values[len(where) + len(parameters) :][: len(self._unclipped)]
        if self.step - self._seen >= LOOK_EVERY:
            self._spectra, self._seen = self._followed.look(model_cells(self._names)), self.step
        return Step(
            self.step,
            self._optimizers.index(optimizer),
            values[-1] if isinstance(loss, Tensor) else None if loss is None else float(loss),
            hypot(*(gradients[i] for i in where)),
            hypot(*unclipped) if unclipped else None,
            gradients,
            weights,
            self.calls[-1].inputs() if self.calls else 0.0,
            self._spectra,
            self._seen,
            last_projections(optimizer),
        )

    def _write(self, verdict: str) -> None:
        there = len(list(self.folder.glob("explosion-*.pt")))
        if there >= self.max_files:
            warn(
                f"ExplosionRecorder: {verdict}; {self.folder} holds {there} recordings already, no more is written:"
                " move them, or raise max_files",
                stacklevel=7,
            )
            return
        self.is_deaf = True
        try:
            recording = captured(
                verdict, self.model, self._names, self._ring, self.calls, self._noted, self._optimizers
            )
        finally:
            self.is_deaf = False
        rank = int(os.environ.get("RANK", "0"))
        path = self.folder / f"explosion-step{self.step}-rank{rank}.pt"
        while path.exists():  # of an earlier training
            path = path.with_stem(f"{path.stem}-again")
        recording.write(path, self.max_bytes)
        self.files.append(path)
        warn(
            f"ExplosionRecorder: {verdict} in step {self.step}; why: spectralgru autopsy {path}", stacklevel=7
        )
