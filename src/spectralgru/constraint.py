"""The spectral constraint for models made of PyTorch's recurrent modules: two lines in an existing training script.

    constraint = SpectralConstraint(model, delta=0.2)
    constraint.attach(optimizer)

Which bound makes the origin stable, with and without biases, is derived in docs/engine.md.
"""

from collections.abc import Iterable
from math import isnan, nan
from typing import Any, SupportsFloat
from warnings import warn
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from spectralgru.attachment import Handle, Watch, find_optimizers, missing
from spectralgru.errors import InputError, RunError
from spectralgru.projection.blocks import MODULES, Block, find_blocks, named_modules
from spectralgru.projection.clip import Solver
from spectralgru.projection.tracked import ProjectionReport


class SpectralConstraint:
    """Keeps the recurrent candidate weights of every GRU and LSTM in a module where the origin is stable.

    After each optimiser step the largest singular value of each candidate block (W_hn, W_hg) is brought down to
    (1 - delta / 2) times its stability limit, which is 2 - delta for a network without biases (Kanai et al., 2017).
    Handles spectralgru.GRU (with replicas, too), torch.nn.GRU, GRUCell, LSTM and LSTMCell, any number of layers, both
    directions. Under DistributedDataParallel every rank projects the same weights to the same result.

    The limit follows the biases, and a weight shared by several modules obeys the lowest of their limits. Parameters
    may be moved or converted at any time, and replaced by others of the same shape if the attached optimiser holds
    those; a replaced module needs a new constraint. Reparametrised, pruned or sharded recurrent weights and biases are
    refused. Where a weight or its biases are not finite, the weight is left alone and sigma_max is reported as NaN.
    What else could silently break the constraint: docs/library.md.
    """

    def __init__(self, module: nn.Module, delta: float = 0.2, method: Solver = "auto") -> None:
        """Find the recurrent modules in `module` and project them once.

        Args:
            module: the model, or one recurrent module; may be wrapped (DDP) or compiled.
            delta: distance from the edge of stability, in (0, 2); the paper's hyper-parameter.
            method: see `clip_singular_values`.

        Raises:
            InputError: delta out of range, nothing recurrent found, a reparametrised or pruned recurrent weight or
                bias, an LSTM with projections or with biases that leave no room for a recurrence.
        """
        if not isinstance(delta, SupportsFloat) or not 0 < delta < 2:
            raise InputError(f"delta={delta!r}: must be a number above 0 and below 2")
        if not isinstance(module, nn.Module):
            raise InputError(f"a {type(module).__name__} is no torch.nn.Module: give the model itself")
        self.delta = delta
        self._model = module
        self._blocks: dict[str, Block] = {}
        self._watches: dict[str, Watch] = {}
        # Hooks, by optimiser. The optimiser keeps the constraint alive, not the other way round.
        self._attached: WeakKeyDictionary[Optimizer, list[RemovableHandle]] = WeakKeyDictionary()
        self._verified: object = None
        self._unbounded: set[str] = set()
        for path, prefix, part in named_modules(module):
            if isinstance(part, MODULES):
                for block in find_blocks(path, prefix or type(part).__name__, part, method):
                    name = f"weight_hh{block.suffix}"
                    self._blocks[f"{prefix}.{name}" if prefix else name] = block
        if not self._blocks:
            names = ", ".join(f"{m.__module__.split('.')[0]}.{m.__name__}" for m in MODULES)
            raise InputError(f"{type(module).__name__}: contains none of {names}")
        try:
            self.project_()
        except RunError as error:
            raise InputError(str(error)) from error

    def project_(self) -> dict[str, ProjectionReport]:
        """Project every block now, in place; returns a report for each weight, by its name in the module.

        A shared weight is reported once, by its first name. An error is raised before anything is changed.

        Raises:
            InputError: since construction a weight has changed its shape, or a weight or bias was reparametrised.
            RunError: the biases of an LSTM no longer leave room for a recurrence.
        """
        shared: dict[int, list[str]] = {}
        for name, block in self._blocks.items():
            self._expect_present(block)
            shared.setdefault(id(block.weight()), []).append(name)
        limits = {}
        for names in shared.values():
            each = [self._blocks[name].stability_limit() for name in names]
            limits[names[0]] = nan if any(map(isnan, each)) else min(each)
        reports = {n: self._blocks[n].project_((1 - self.delta / 2) * limit) for n, limit in limits.items()}
        for name, watch in self._watches.items():
            watch.projected(self._blocks[name].weight())
        return reports

    def _expect_present(self, block: Block) -> None:
        try:
            there = self._model.get_submodule(block.path)
        except AttributeError:
            there = None
        if there is not block.module:
            raise InputError(
                f"{block.where} is no longer the module that was constrained: make a new SpectralConstraint"
            )

    def attach(self, optimizer: Optimizer, *others: Optimizer) -> RemovableHandle:
        """Project after every `step()` that is carried out, until the handle's `remove()`.

        Args:
            optimizer: holds the constrained weights and their biases; a wrapper's inner optimiser is found. A weight
                that is not trained (`requires_grad`) need not be there.
            others: further optimisers, where several share the weights. Attaching one again replaces its hook.

        Raises:
            InputError: a constrained weight that none of the optimisers holds; no optimiser whose hooks run; a
                schedule-free one. After a later step: RunError, when a weight was replaced or thawed since.
        """
        optimizers = [each for outer in (optimizer, *others) for each in find_optimizers(outer)]
        if left := missing(self._trained(), optimizers):
            raise InputError(
                f"{type(optimizer).__name__} does not hold {_some(left)}: attach the optimiser made from this model's"
                " parameters, several at once as attach(first, second); what is not to be trained,"
                " requires_grad_(False)"
            )
        self._hook(optimizers)
        return Handle(self._detach, optimizers)

    def _hook(self, optimizers: Iterable[Optimizer]) -> None:
        for each in optimizers:
            self._detach([each])
            after = each.register_step_post_hook(self._after_step)
            hooks: Any = each._optimizer_step_post_hooks
            hooks.move_to_end(after.id, last=False)  # others average what this one leaves
            self._attached[each] = [each.register_step_pre_hook(self._before_step), after]
        for name, block in self._blocks.items() if self._attached else ():
            watch = self._watches.setdefault(name, Watch(block.where, f"weight_hh{block.suffix}"))
            watch.install(block.module)
            watch.projected(block.weight())

    def _detach(self, optimizers: Iterable[Optimizer]) -> None:
        for each in optimizers:
            for handle in self._attached.pop(each, []):
                handle.remove()
        if not self._attached:
            for name, watch in self._watches.items():
                watch.uninstall(self._blocks[name].module)

    def _trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters that a bound depends on or applies to, by name."""
        parameters = {}
        for name, block in self._blocks.items():
            parameters[name] = block.weight()
            parameters |= {f"{block.where}.{bias}": parameter for bias, parameter in block.biases().items()}
        return parameters

    def _before_step(self, *_: Any) -> None:
        if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():  # type: ignore[no-untyped-call]
            raise RunError(
                "a CUDA graph that holds optimizer.step() would not project when replayed: capture the step before"
                " attaching, and call constraint.project_() after every replay"
            )
        for watch in self._watches.values():
            watch.stepping = True

    def _after_step(self, *_: Any) -> None:
        for watch in self._watches.values():
            watch.stepping = False
        for name, report in self.project_().items():
            if name not in self._unbounded and isnan(float(report.sigma_max.sum())):
                self._unbounded.add(name)
                warn(
                    f"{name} or its biases are not finite: not projected, training has diverged", stacklevel=4
                )
        self._verify()

    def _verify(self) -> None:
        """Check that the optimisers still hold what they must; looked up again only after a change."""
        trained, optimizers = self._trained(), list(self._attached)
        groups = [len(group["params"]) for each in optimizers for group in each.param_groups]
        seen = [[(id(p), p.requires_grad) for p in trained.values()], groups]
        if seen == self._verified:
            return
        if left := missing(trained, optimizers):
            raise RunError(
                f"{_some(left)}, trained, is no longer held by the optimiser: it was replaced (assignment,"
                " load_state_dict(assign=True), a conversion) or thawed (requires_grad) after the optimiser was made;"
                " make the optimiser anew, or optimizer.add_param_group, and attach again"
            )
        self._verified = seen

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_attached": list(self._attached), "_verified": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A constraint copied or unpickled together with its optimiser is attached to that optimiser."""
        self.__dict__.update(state | {"_attached": WeakKeyDictionary()})
        self._hook(state["_attached"])

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue bit for bit."""
        return {
            name: {"projection": block.projection.state_dict(), "last": block.last.clone()}
            for name, block in self._blocks.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of a constraint on a module of the same structure."""
        if state.keys() != self._blocks.keys():
            raise InputError(f"state for {sorted(state)} does not fit a module with {sorted(self._blocks)}")
        for name, block in self._blocks.items():
            if (shape := state[name]["last"].shape) != block.last.shape:
                raise InputError(
                    f"{name}: the state is of a candidate of shape {list(shape)}, the module's is"
                    f" {list(block.last.shape)}; load the state of a network of this size"
                )
        for name, block in self._blocks.items():
            block.projection.load_state_dict(state[name]["projection"])
            block.last = state[name]["last"].clone()


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
