"""Finds the optimisers that change constrained weights, and watches for changes that escape the constraint."""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from spectralgru.errors import InputError


def find_optimizers(outer: Any) -> list[Optimizer]:
    """The optimisers whose `step` runs hooks: `outer`, or those it holds (SAM, accelerate's wrapper).

    Raises:
        InputError: there is none, or one of them evaluates other weights than it trains.
    """
    optimizers: list[Optimizer] = []
    left, seen = [outer], set()
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        hooked = getattr(getattr(type(each), "step", None), "hooked", False)
        if isinstance(each, Optimizer) and hooked and hasattr(each, "_optimizer_step_post_hooks"):
            optimizers.append(each)
        if (each in optimizers or not isinstance(each, Optimizer | nn.Module)) and _averages(each):
            raise InputError(
                f"{type(each).__name__}, after its eval(), evaluates weights that the constraint does not bound: it "
                "projects the trained ones; use another optimiser, or call constraint.project_() after "
                "optimizer.eval()"
            )
        for value in getattr(each, "__dict__", {}).values():
            values = value.values() if isinstance(value, dict) else value
            left += [
                v
                for v in (values if isinstance(value, dict | list | tuple) else [value])
                if isinstance(v, Optimizer)
            ]
    if not optimizers:
        raise InputError(
            f"{type(outer).__name__} is not a torch.optim.Optimizer whose step() runs hooks, and holds none: attach the"
            " one inside it, or call constraint.project_() after every step"
        )
    return optimizers


def _averages(optimizer: Any) -> bool:
    """Whether the optimiser is schedule-free."""
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


def missing(weights: Mapping[str, nn.Parameter], optimizers: Iterable[Optimizer]) -> list[str]:
    """Names of the parameters that are trained, but not by any of the optimisers."""
    held = {id(p) for each in optimizers for group in each.param_groups for p in group["params"]}
    return [name for name, weight in weights.items() if weight.requires_grad and id(weight) not in held]


def some(names: list[str]) -> str:
    """The first name, and how many others there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


class Handle(RemovableHandle):
    """Ends the attachment to some optimisers."""

    def __init__(self, end: Callable[[list[Optimizer]], None], optimizers: Iterable[Optimizer]) -> None:
        super().__init__(OrderedDict())
        self._end, self._optimizers = end, WeakSet(optimizers)

    def remove(self) -> None:
        """End the attachment; a second call does nothing."""
        self._end(list(self._optimizers))

    def __getstate__(self) -> Any:
        return self._end, list(self._optimizers)

    def __setstate__(self, state: Any) -> None:
        self.__init__(*state)  # type: ignore[misc]


class Watch:
    """A hook of a module that warns when one of its weights is trained but never projected.

    Unlike the optimiser's hooks, it is copied and pickled with the module. SAM and similar optimisers change a weight
    once between two projections; a weight that changes twice has lost its constraint. A change counts only after a
    gradient: averages and target networks get none, and follow a model that is projected. All constraints on a weight
    share one watch.
    """

    def __init__(self, where: str, name: str) -> None:
        self.where, self.name = where, name
        self.stepping = False  # inside an optimiser's step(), whose closure may run the module
        self.trained = False  # a gradient has come since the last change
        self.changes = 0  # seen since the last projection
        self._seen: tuple[int, int] | None = None
        self._owners: WeakSet[object] = WeakSet()  # constraints that project the weight; a copy has none

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"stepping": False, "_owners": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_owners": WeakSet()})

    def projected(self, weight: nn.Parameter) -> None:
        """Note that the weight has just been projected."""
        self._seen, self.changes, self.trained = _state(weight), 0, False

    def __call__(self, module: nn.Module, _: Any) -> None:
        """Before a forward pass."""
        if (
            torch.compiler.is_compiling()
            or self.stepping
            or not (module.training and torch.is_grad_enabled())
        ):
            return
        weight = getattr(module, self.name, None)
        if not isinstance(weight, nn.Parameter) or not weight.requires_grad:
            return
        if self._note_gradient not in (weight._post_accumulate_grad_hooks or {}).values():
            weight.register_post_accumulate_grad_hook(self._note_gradient)  # type: ignore[no-untyped-call]
        if self._seen == _state(weight):
            return
        counts, self._seen, self.trained = self.trained, _state(weight), False
        self.changes += counts
        if counts and self.changes == 2:
            warnings.warn(
                f"{self.where}: {self.name} was changed twice and not projected: no SpectralConstraint is attached to"
                " the optimiser that changes it (a copy? step() replaced?); attach one to this model and its optimiser:"
                " SpectralConstraint(model, delta).attach(optimizer)",
                stacklevel=4,
            )

    @classmethod
    def installed(cls, owner: object, module: nn.Module, where: str, name: str) -> "Watch":
        """The watch of this weight of the module, installed if there is none."""
        watches = [w for w in module._forward_pre_hooks.values() if isinstance(w, Watch) and w.name == name]
        watch = watches[0] if watches else cls(where, name)
        if not watches:
            module.register_forward_pre_hook(watch)
        watch._owners.add(owner)
        return watch

    def leave(self, owner: object, module: nn.Module) -> None:
        """Undo `installed` when the last owner leaves."""
        self._owners.discard(owner)
        if self._owners:
            return
        on_weight = getattr(getattr(module, self.name, None), "_post_accumulate_grad_hooks", None)
        for hooks in (module._forward_pre_hooks, on_weight or {}):
            for key in [key for key, hook in hooks.items() if hook in (self, self._note_gradient)]:
                del hooks[key]

    def _note_gradient(self, _: torch.Tensor) -> None:
        self.trained = True


def _state(weight: nn.Parameter) -> tuple[int, int]:
    """A value that changes when the weight is changed in place (except through `.data`) or its storage replaced."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version
