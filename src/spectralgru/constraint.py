"""The spectral constraint for models made of PyTorch's recurrent modules: two lines in an existing training script.

    constraint = SpectralConstraint(model, delta=0.2)
    constraint.attach(optimizer)

Which bound makes the origin stable, with and without biases, is derived in docs/engine.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.nn.utils.parametrize import is_parametrized

from spectralgru.errors import InputError, RunError
from spectralgru.projection.clip import Method
from spectralgru.projection.tracked import ProjectionReport, SpectralProjection
from spectralgru.recurrent.gru import GRU

_MODULES = (GRU, nn.GRU, nn.GRUCell, nn.LSTM, nn.LSTMCell)
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
# A limit below this, which only an LSTM's can be, is an error: W_hg h, with the state in [-1, 1], would be lost in half
# precision's rounding, and the projection, which never lets W_hg grow again, would delete the recurrence instead of
# stabilising it. With the other gates half open it is a forget bias of 8.
_SMALLEST_LIMIT = 1e-3


@dataclass
class _Block:
    """The candidate's rows of one recurrent weight, and what bounds them.

    Weight and biases are looked up whenever they are used, for both may be replaced: by
    `load_state_dict(assign=True)`, by assignment.
    """

    where: str  # the module's name, for people
    module: nn.Module
    suffix: str  # of the names of its weight and biases: "", "_l0", "_l0_reverse"
    shape: torch.Size  # of the weight: [3H or 4H, H], with our GRU's replicas [R, 3H, H]
    projection: SpectralProjection
    last: Tensor  # [R, H, H], candidate after the last projection

    def weight(self) -> nn.Parameter:
        """The weight as it is now."""
        weight = _weight(self.where, self.module, self.suffix)
        if weight.shape != self.shape:
            raise InputError(
                f"{self.where}: weight_hh{self.suffix} has shape {list(weight.shape)}, and had {list(self.shape)} when"
                " it was first constrained; make a new SpectralConstraint"
            )
        return weight

    def project_(self, bound: float) -> ProjectionReport:
        """Bring the candidate's singular values down to `bound`; NaN: leave it alone."""
        candidate = _candidate(self.weight())
        if isnan(bound):
            nothing = torch.zeros(len(candidate), dtype=torch.int64, device=candidate.device)
            return ProjectionReport(nothing + nan, nothing, nothing > 0)
        # Subtracted in the wider type of the two, so that a conversion's rounding is part of the move.
        moved = torch.linalg.vector_norm(
            candidate - self.last.to(candidate.device), dim=(1, 2), dtype=torch.float64
        )
        self.projection.max_sv = [bound] * len(candidate)
        report = self.projection.project_(candidate, moved)
        self.last = self.last.to(candidate).copy_(candidate)
        return report

    def stability_limit(self) -> float:
        """The origin is stable when sigma_1 of the candidate is below this; 2 without biases; NaN: biases not finite.

        Raises:
            RunError: the limit is too small to leave a recurrence.
        """
        names = [f"{kind}{self.suffix}" for kind in ("bias_ih", "bias_hh")]
        biases = [b for b in (_parameter(self.where, self.module, name) for name in names) if b is not None]
        if not biases:
            return 2.0
        total = torch.stack([bias.detach().double() for bias in biases]).sum(0)
        # As logarithms, gates close to 0 and to 1 are exact: 1 - f = sigmoid(-b_f).
        if isinstance(self.module, nn.LSTM | nn.LSTMCell):
            i, f, _, o = total.chunk(4)
            logarithm = -(logsigmoid(i) - logsigmoid(-f)).max() - logsigmoid(o).max()
        else:
            logarithm = -logsigmoid(total.chunk(3)[0]).max()
        limit = float(logarithm.exp().where(total.isfinite().all(), nan))
        if limit < _SMALLEST_LIMIT:
            raise RunError(
                f"{self.where}: {' + '.join(names)}, up to {float(f.max()):.4g} at the forget gate, limit sigma_1 of"
                f" the candidate of weight_hh{self.suffix} to {limit:.2g}; below {_SMALLEST_LIMIT:g} projecting would"
                " delete its recurrence: lower the forget gate's bias (rows H to 2H; during training the learning rate)"
                " or leave this module out"
            )
        return limit


class SpectralConstraint:
    """Keeps the recurrent candidate weights of every GRU and LSTM in a module where the origin is stable.

    After each optimiser step the largest singular value of each candidate block (W_hn, W_hg) is brought down to
    (1 - delta / 2) times its stability limit, which is 2 - delta for a network without biases (Kanai et al., 2017).
    Handles spectralgru.GRU (with replicas, too), torch.nn.GRU, GRUCell, LSTM and LSTMCell, any number of layers, both
    directions. Under DistributedDataParallel every rank projects the same weights to the same result.

    The limit follows the biases, and a weight shared by several modules obeys the lowest of their limits. Parameters
    may be replaced by others of their shape, moved or converted at any time; a replaced module needs a new constraint.
    Reparametrised or pruned recurrent weights and biases are refused. Where a weight or its biases are not finite the
    weight is left alone and sigma_max reported as NaN.
    """

    def __init__(self, module: nn.Module, delta: float = 0.2, method: Method = "auto") -> None:
        """Find the recurrent modules in `module` and project them once.

        Args:
            module: the model, or one recurrent module; may be wrapped (DDP) or compiled.
            delta: distance from the edge of stability, in (0, 2); the paper's hyper-parameter.
            method: see `clip_singular_values`.

        Raises:
            InputError: delta out of range, nothing recurrent found, a reparametrised or pruned recurrent weight or
                bias, an LSTM with projections or with biases that leave no room for a recurrence.
        """
        if not 0 < delta < 2:
            raise InputError(f"delta={delta}: must be above 0 and below 2")
        self.delta = delta
        self._blocks: dict[str, _Block] = {}
        for prefix, part in _named_modules(module):
            if isinstance(part, _MODULES):
                for block in _blocks(prefix or type(part).__name__, part, method):
                    name = f"weight_hh{block.suffix}"
                    self._blocks[f"{prefix}.{name}" if prefix else name] = block
        if not self._blocks:
            names = ", ".join(f"{m.__module__.split('.')[0]}.{m.__name__}" for m in _MODULES)
            raise InputError(f"{type(module).__name__}: contains none of {names}")
        try:
            self.project_()
        except RunError as error:
            raise InputError(str(error)) from error

    def project_(self) -> dict[str, ProjectionReport]:
        """Project every block now, in place; what was found, by the weight's name in the module.

        A shared weight is reported once, by its first name. An error is raised before anything is changed.

        Raises:
            InputError: a weight has another shape, or it or a bias was reparametrised, since construction.
            RunError: the biases of an LSTM have come to leave no room for a recurrence.
        """
        shared: dict[int, list[str]] = {}
        for name, block in self._blocks.items():
            shared.setdefault(id(block.weight()), []).append(name)
        limits = {}
        for names in shared.values():
            each = [self._blocks[name].stability_limit() for name in names]
            limits[names[0]] = nan if any(map(isnan, each)) else min(each)
        return {n: self._blocks[n].project_((1 - self.delta / 2) * limit) for n, limit in limits.items()}

    def attach(self, optimizer: torch.optim.Optimizer) -> torch.utils.hooks.RemovableHandle:
        """Project after every `optimizer.step()` that is carried out; the handle's `remove()` ends it."""
        return optimizer.register_step_post_hook(lambda *_: self._after_step())

    def _after_step(self) -> None:
        self.project_()

    def state_dict(self) -> dict[str, Any]:
        """What a bit-identical continuation needs."""
        return {
            name: {"projection": block.projection.state_dict(), "last": block.last.clone()}
            for name, block in self._blocks.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of a constraint on a module of the same structure."""
        if state.keys() != self._blocks.keys():
            raise InputError(f"state for {sorted(state)} does not fit a module with {sorted(self._blocks)}")
        for name, block in self._blocks.items():
            if (found := state[name]["last"].shape) != block.last.shape:
                raise InputError(
                    f"{name}: the state is of a candidate of shape {list(found)}, the module's is"
                    f" {list(block.last.shape)}; load the state of a network of this size"
                )
        for name, block in self._blocks.items():
            block.projection.load_state_dict(state[name]["projection"])
            block.last = state[name]["last"].clone()


def _named_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """`root.named_modules()` without the levels of DDP and torch.compile: a state fits with and without them."""
    names = {"": ""}
    modules = dict(root.named_modules())
    for path, module in modules.items():
        if path:
            parent, _, leaf = path.rpartition(".")
            inside = leaf == "_orig_mod" or isinstance(modules[parent], _WRAPPERS)
            names[path] = names[parent] if inside else f"{names[parent]}.{leaf}".removeprefix(".")
        yield names[path], module


def _blocks(where: str, module: nn.Module, method: Method) -> Iterator[_Block]:
    """One for each layer and direction of a recurrent module."""
    if proj_size := getattr(module, "proj_size", 0):
        raise InputError(f"{where}: LSTM with proj_size={proj_size} is not supported; use 0")
    suffixes = [""]
    if isinstance(module, GRU | nn.RNNBase):
        directions = ["", "_reverse"] if getattr(module, "bidirectional", False) else [""]
        suffixes = [f"_l{layer}{d}" for layer in range(module.num_layers) for d in directions]
    for suffix in suffixes:
        weight = _weight(where, module, suffix)
        candidate = _candidate(weight)
        projection = SpectralProjection(torch.ones(len(candidate)), method)
        yield _Block(where, module, suffix, weight.shape, projection, candidate.clone())
    names = {f"weight_hh{suffix}" for suffix in suffixes}
    for name, _ in module.named_parameters(recurse=False):
        if name.startswith("weight_hh") and name not in names:
            raise _refusal(where, name)


def _weight(where: str, module: nn.Module, suffix: str) -> nn.Parameter:
    weight = _parameter(where, module, f"weight_hh{suffix}")
    if weight is None:
        raise _refusal(where, f"weight_hh{suffix}")
    return weight


def _parameter(where: str, module: nn.Module, name: str) -> nn.Parameter | None:
    """The parameter of that name, None where there is none."""
    found = getattr(module, name, None)
    if found is None or (isinstance(found, nn.Parameter) and not is_parametrized(module, name)):
        return found
    raise _refusal(where, name)


def _refusal(where: str, name: str) -> InputError:
    return InputError(
        f"{where}: {name} is not one of the layer's own parameters (weight norm, spectral norm, pruning?); the"
        " constraint projects and reads those: undo it first (torch.nn.utils.parametrize.remove_parametrizations,"
        " remove_weight_norm, prune.remove)"
    )


def _candidate(weight: Tensor) -> Tensor:
    """[R, H, H], a view without gradient: rows 2H to 3H."""
    hidden = weight.shape[-1]
    rows = weight.detach()[..., 2 * hidden : 3 * hidden, :]
    return rows if rows.dim() == 3 else rows.unsqueeze(0)
