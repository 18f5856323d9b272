"""The spectral constraint for any model with PyTorch's recurrent modules: two lines in an existing training script.

    constraint = SpectralConstraint(model, delta=0.2)
    constraint.attach(optimizer)

Which bound makes the origin stable, with and without biases, is derived in docs/engine.md.
"""

from collections.abc import Iterable
from math import inf, isnan, nan
from typing import Any, SupportsFloat
from warnings import warn
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from spectralgru.attachment import Handle, Watch, find_optimizers, missing, some
from spectralgru.errors import InputError, RunError
from spectralgru.projection.blocks import find_blocks, key
from spectralgru.projection.clip import Solver
from spectralgru.projection.kept import Kept, restore
from spectralgru.projection.tracked import ProjectionReport


class SpectralConstraint:
    """Keeps the recurrent candidate weights of every GRU, LSTM and RNN in a module where its origin stays stable.

    After each optimiser step the largest singular value of each candidate block (W_hn, W_hg) is brought down to
    (1 - delta / 2) times its stability limit, which is 2 - delta for a network without biases (Kanai et al., 2017).
    That of an RNN's W_hh is brought down to 1 - delta / 2, where the RNN contracts everywhere. Handles spectralgru.GRU
    (also with replicas) and torch.nn's GRU, LSTM, RNN and their cells, with any number of layers and in both
    directions. Under DistributedDataParallel every rank projects the same weights to the same result.

    The limit follows the biases. A weight shared by several modules obeys the lowest of their limits. Parameters may be
    moved or converted at any time, and replaced by others of the same shape if the attached optimiser holds those; a
    replaced module needs a new constraint. Reparametrised, pruned or sharded recurrent weights and biases are refused.
    If a weight or its biases are not finite, the weight is left alone and sigma_max is reported as NaN. What else could
    silently break the constraint: docs/library.md.
    """

    def __init__(
        self, module: nn.Module, delta: float = 0.2, method: Solver = "auto", gates: float | None = None
    ) -> None:
        """Find the recurrent modules in `module` and project them once.

        Args:
            module: the model, or one recurrent module; may be wrapped (DDP) or compiled.
            delta: distance from the edge of stability, in (0, 2); the paper's hyper-parameter.
            method: see `clip_singular_values`.
            gates: the largest singular value allowed in W_hr and W_hz (LSTM: W_hi, W_hf and W_ho); None: no bound.
                For what it guarantees, see `growth_bound`.

        Raises:
            InputError: delta or gates out of range, nothing recurrent or gated found, a reparametrised or pruned
                recurrent weight or bias, an LSTM with projections or with biases that leave no room for a recurrence.
        """
        if not isinstance(delta, SupportsFloat) or not 0 < delta < 2:
            raise InputError(f"delta={delta!r}: must be a number above 0 and below 2")
        if not isinstance(module, nn.Module):
            raise InputError(f"a {type(module).__name__} is no torch.nn.Module: give the model itself")
        if gates is not None and not (isinstance(gates, SupportsFloat) and 0 < gates < inf):
            raise InputError(f"gates={gates!r}: must be a number above 0, or None")
        self.delta, self.gates, self._model = delta, gates, module
        self._blocks = find_blocks(module, method, gates is not None)
        self._watches: dict[str, Watch] = {}
        # Hooks by optimiser. The optimiser keeps the constraint alive, not the other way round.
        self._attached: WeakKeyDictionary[Optimizer, list[RemovableHandle]] = WeakKeyDictionary()
        self.reports: dict[str, ProjectionReport] = {}  # of the last projection
        self._verified: object = None
        self._unbounded: set[str] = set()
        if gates is not None and not any(len(block.kept) > 1 for block in self._blocks.values()):
            raise InputError(f"gates={gates:g}: {type(module).__name__} has no gated module; leave it out")
        try:
            self.project_()
        except RunError as error:
            raise InputError(str(error)) from error

    def project_(self) -> dict[str, ProjectionReport]:
        """Project every block now, in place; returns a report for each weight, by its name in the module.

        Gates have reports of their own, such as `rnn.weight_hh_l0.reset`. A shared weight is reported once, under its
        first name. Errors are raised before anything is changed.

        Raises:
            InputError: a weight has changed its shape since construction, or a weight or bias was reparametrised.
            RunError: the biases of an LSTM no longer leave room for a recurrence.
        """
        weights, shared = {}, dict[int, list[str]]()
        for name, block in self._blocks.items():
            block.expect_present(self._model)
            weights[name] = block.weight()
            shared.setdefault(id(weights[name]), []).append(name)
        limits = {}
        for names in shared.values():
            each = [self._blocks[name].stability_limit() for name in names]
            limits[names[0]] = nan if any(map(isnan, each)) else min(each)
        reports = {}
        for name, limit in limits.items():
            matrices, own = self._blocks[name].matrices(weights[name]), limit * (1 - self.delta / 2)
            for part, kept in self._blocks[name].kept.items():
                bound = self.gates if self.gates and part != "candidate" and not isnan(limit) else own
                reports[key(name, part)] = kept.project_(matrices[part], bound)
        for name, watch in self._watches.items():
            watch.projected(weights[name])
        self.reports = reports
        return reports

    def attach(self, optimizer: Optimizer, *others: Optimizer) -> RemovableHandle:
        """Project after every completed `step()`, until the handle's `remove()` is called.

        Args:
            optimizer: holds the constrained weights and their biases; the optimiser inside a wrapper is found. Weights
                that are not trained (`requires_grad`) may be missing.
            others: further optimisers, if several share the weights. An optimiser attached again, or to another
                constraint on these weights, obeys only the last one.

        Raises:
            InputError: a constrained weight is in no optimiser, no optimiser runs hooks, or one is schedule-free. A
                later step raises RunError if a weight has been replaced or thawed since.
        """
        optimizers = [each for outer in (optimizer, *others) for each in find_optimizers(outer)]
        if left := missing(self._trained(), optimizers):
            raise InputError(
                f"{type(optimizer).__name__} does not hold {some(left)}: attach the optimiser made from this model's"
                " parameters, several at once as attach(first, second); what is not to be trained,"
                " requires_grad_(False)"
            )
        self._hook(optimizers)
        return Handle(self._detach, optimizers)

    def _hook(self, optimizers: Iterable[Optimizer]) -> None:
        for each in optimizers:
            hooks: Any = each._optimizer_step_post_hooks
            for other in [getattr(hook, "__self__", None) for hook in hooks.values()]:
                if isinstance(other, SpectralConstraint) and other._weights() <= self._weights():
                    other._detach([each])
            after = each.register_step_post_hook(self._after_step)
            hooks.move_to_end(after.id, last=False)  # hooks that average weights must see the projected ones
            self._attached[each] = [each.register_step_pre_hook(self._before_step), after]
        for name, block in self._blocks.items() if self._attached else ():
            watch = Watch.installed(self, block.module, block.where, f"weight_hh{block.suffix}")
            watch.projected(block.weight())
            self._watches[name] = watch

    def _detach(self, optimizers: Iterable[Optimizer]) -> None:
        for each in optimizers:
            for handle in self._attached.pop(each, []):
                handle.remove()
        if not self._attached:
            for name, watch in self._watches.items():
                watch.leave(self, self._blocks[name].module)

    def _weights(self) -> set[int]:
        return {id(block.weight()) for block in self._blocks.values()}

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
        for part, report in self.project_().items():
            name = part if part in self._blocks else part.rpartition(".")[0]
            if name not in self._unbounded and isnan(float(report.sigma_max.sum())):
                self._unbounded.add(name)
                warn(
                    f"{name} or its biases are not finite: not projected, training has diverged", stacklevel=4
                )
        self._verify()

    def _verify(self) -> None:
        """Check that the optimisers still hold every trained parameter; looks them up only after a change."""
        trained, optimizers = self._trained(), list(self._attached)
        groups = [len(group["params"]) for each in optimizers for group in each.param_groups]
        seen = [[(id(p), p.requires_grad) for p in trained.values()], groups]
        if seen == self._verified:
            return
        if left := missing(trained, optimizers):
            raise RunError(
                f"{some(left)}, trained, is no longer held by the optimiser: it was replaced (assignment,"
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

    def growth_bound(self, cell: float = inf) -> float:
        """An upper bound on the factor by which one step can lengthen the gradient of a layer's state, for any input.

        It is at least the spectral norm of d state' / d state of every layer and direction, with the current weights,
        at every state that can be reached from zero; NaN if a weight is not finite. Proof: docs/method.md.

        Args:
            cell: the largest |c| of an LSTM before the step, which nothing else bounds: it is at most t after t steps
                from zero. Without it the result for an LSTM is infinite.

        Raises:
            InputError: `cell` is negative or not a number.
        """
        if not isinstance(cell, SupportsFloat) or not cell >= 0:
            raise InputError(f"cell={cell!r}: must be a number, at least 0: the largest |c| of an LSTM")
        bounds = [block.growth_bound(float(cell)) for block in self._blocks.values()]
        return nan if any(map(isnan, bounds)) else max(bounds)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue bit for bit."""
        return {name: kept.state_dict() for name, kept in self._kept().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of a constraint on a module of the same structure.

        Weights that differ from those of the state only by the rounding of a projection become equal to them.

        Args:
            state: what `state_dict()` returned.

        Raises:
            InputError: it belongs to another module, or is not such a state; nothing is loaded.
        """
        restore(self._kept(), state)
        for block in self._blocks.values():
            block.settle()

    def _kept(self) -> dict[str, Kept]:
        return {key(name, part): kept for name, b in self._blocks.items() for part, kept in b.kept.items()}
