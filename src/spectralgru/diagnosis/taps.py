"""Hooks that see what a model is given and which gradients come back to it, without a change to the training loop."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spectralgru.diagnosis.generators import random_states
from spectralgru.errors import InputError


@dataclass
class ModelCall:
    """One call of the model, or of the outermost part of it that is called; the batch is not copied."""

    root: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    random: dict[str, Tensor]
    autocast: list[str]
    gradients: list[Tensor | None] = field(default_factory=list)  # dL/d output, for each of its tensors

    def inputs(self) -> float | Tensor:
        """Root mean square of the first floating-point input; if it is large, of 64 short pieces of it."""
        for tensor in chain.from_iterable(map(tensors_of, (*self.args, *self.kwargs.values()))):
            if tensor.is_floating_point() and tensor.numel():
                some = tensor.detach().flatten()
                if len(some) > 4096:
                    some = some[: len(some) // 64 * 64].view(64, -1)[:, :16]
                norm: Tensor = torch.linalg.vector_norm(some)
                return norm.div(some.numel() ** 0.5)
        return 0.0


class Listener:
    """Receives from a `Tap` the calls since the last step."""

    def __init__(self) -> None:
        self.calls: list[ModelCall] = []
        self.is_over = False  # a step has been taken, and the next call begins a new list
        self.is_deaf = False
        self.device = "cpu"

    def add(self, call: ModelCall, most: int = 16) -> None:
        """Add a call; drop those before the last step, and the oldest beyond `most`."""
        self.calls = [*([] if self.is_over else self.calls[1 - most :]), call]
        self.is_over = False


class Tap:
    """Hooks on the modules that contain something recurrent; only the outermost call counts.

    Copies and pickles of the model have the hooks, too, but there they do nothing.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener: ReferenceType[Listener] | None = None if listener is None else ref(listener)
        self._inside: nn.Module | None = None
        self._handles: list[Any] = []

    def __reduce__(self) -> Any:
        return Tap, ()

    @property
    def listener(self) -> Listener | None:
        """The listener, while it exists."""
        return None if self._listener is None else self._listener()

    def install(self, modules: Iterator[nn.Module]) -> None:
        """Hook every module; raises InputError if another recorder has done so."""
        modules_once = list(dict.fromkeys(modules))
        for module in modules_once:
            for hook in module._forward_pre_hooks.values():
                tap = getattr(hook, "__self__", None)
                if isinstance(tap, Tap) and tap.listener is not None:
                    raise InputError(
                        "the model has an ExplosionRecorder already: use that one, or end it with its handle's remove()"
                    )
        for module in modules_once:
            self._handles.append(module.register_forward_pre_hook(self.before, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self.after, with_kwargs=True, always_call=True))

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a forward pass."""
        if torch.compiler.is_compiling() or self._inside is not None or not torch.is_grad_enabled():
            return
        listener = self.listener
        if listener is None or listener.is_deaf:
            return
        self._inside = module
        device = listener.device
        amp = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        autocast = [device, str(torch.get_autocast_dtype(device)).removeprefix("torch.")] if amp else []
        listener.add(ModelCall(module, args, kwargs, random_states(), autocast))

    def after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """After a forward pass, even a failed one."""
        if torch.compiler.is_compiling() or self._inside is not module:
            return
        self._inside = None
        listener = self.listener
        if listener is None or not listener.calls:
            return
        call = listener.calls[-1]
        for index, tensor in enumerate(tensors_of(output)):
            call.gradients.append(None)
            if tensor.requires_grad:
                tensor.register_hook(partial(_keep, call.gradients, index))  # type: ignore[no-untyped-call]


def _keep(gradients: list[Tensor | None], index: int, gradient: Tensor) -> None:
    before, gradient = gradients[index], gradient.detach()
    gradients[index] = gradient if before is None else before + gradient


def tensors_of(tree: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists, dicts and dataclasses, in order."""
    if isinstance(tree, Tensor):  # the usual case, without the slow pytree
        return [tree]
    found = []
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            found += tensors_of(list(vars(leaf).values()))
    return found


def weighted(gradients: list[Any]) -> Callable[[Any], Tensor]:
    """A function of the model's output whose gradients with respect to its tensors are `gradients`."""

    def objective(output: Any) -> Tensor:
        pairs = zip(tensors_of(output), gradients, strict=True)
        products = [(t * g.to(t)).sum() for t, g in pairs if g is not None]
        if not products:
            raise InputError("no gradient came back to the model's output")
        return torch.stack([p.double() for p in products]).sum()

    return objective


def with_ancestors(model: nn.Module, is_wanted: Callable[[nn.Module], bool]) -> Iterator[nn.Module]:
    """The wanted modules and all modules that contain one, `model` first."""
    for module in model.modules():
        if any(is_wanted(inner) for inner in module.modules()):
            yield module


def note_norm(norms_by_name: dict[str, Tensor], name: str, weight: Tensor) -> None:
    """Hook of a weight: keep the norm of its gradient under its name."""
    if weight.grad is not None:
        norms_by_name[name] = torch.linalg.vector_norm(weight.grad.detach())
