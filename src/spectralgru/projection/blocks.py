"""The matrices that a `SpectralConstraint` keeps below their bounds: found in a module, read, projected."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from spectralgru.errors import InputError, RunError
from spectralgru.projection.clip import Solver
from spectralgru.projection.tracked import ProjectionReport, SpectralProjection
from spectralgru.recurrent.gru import GRU

MODULES = (GRU, nn.GRU, nn.GRUCell, nn.LSTM, nn.LSTMCell)
_TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
# A limit below this, which only an LSTM's can be, is an error: W_hg h, with the state in [-1, 1], would be lost in the
# rounding of half precision, and the projection, which never lets W_hg grow again, would delete the recurrence instead
# of stabilising it. With the other gates half open this corresponds to a forget bias of 8.
_SMALLEST_LIMIT = 1e-3


@dataclass
class Block:
    """The candidate's rows of one recurrent weight, and what bounds them.

    Weight and biases are looked up whenever they are used, since both may be replaced: by assignment or
    `load_state_dict(assign=True)`.
    """

    where: str  # the module's name, for people
    path: str  # where the model has it
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

    def biases(self) -> dict[str, nn.Parameter]:
        """The biases as they are now, by name."""
        names = [f"{kind}{self.suffix}" for kind in ("bias_ih", "bias_hh")]
        biases_by_name = {name: _parameter(self.where, self.module, name) for name in names}
        return {name: bias for name, bias in biases_by_name.items() if bias is not None}

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
        biases = self.biases()
        if not biases:
            return 2.0
        total = torch.stack([bias.detach().double() for bias in biases.values()]).sum(0)
        # As logarithms, gates close to 0 and to 1 are exact: 1 - f = sigmoid(-b_f).
        if isinstance(self.module, nn.LSTM | nn.LSTMCell):
            i, f, _, o = total.chunk(4)
            logarithm = -(logsigmoid(i) - logsigmoid(-f)).max() - logsigmoid(o).max()
        else:
            logarithm = -logsigmoid(total.chunk(3)[0]).max()
        limit = float(logarithm.exp().where(total.isfinite().all(), nan))
        if limit < _SMALLEST_LIMIT:
            raise RunError(
                f"{self.where}: {' + '.join(biases)}, up to {float(f.max()):.4g} at the forget gate, limit sigma_1 of"
                f" the candidate of weight_hh{self.suffix} to {limit:.2g}; below {_SMALLEST_LIMIT:g} projecting would"
                " delete its recurrence: lower the forget gate's bias (rows H to 2H; during training the learning rate)"
                " or leave this module out"
            )
        return limit


def named_modules(root: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Path, name, module. Names omit the levels of DDP and torch.compile: a state fits with and without them."""
    names = {"": ""}
    modules = dict(root.named_modules())
    for path, module in modules.items():
        if path:
            parent, _, leaf = path.rpartition(".")
            inside = leaf == "_orig_mod" or isinstance(modules[parent], _WRAPPERS)
            names[path] = names[parent] if inside else f"{names[parent]}.{leaf}".removeprefix(".")
        yield path, names[path], module


def find_blocks(path: str, where: str, module: nn.Module, method: Solver) -> Iterator[Block]:
    """One for each layer and direction of a recurrent module."""
    if proj_size := getattr(module, "proj_size", 0):
        raise InputError(f"{where}: LSTM with proj_size={proj_size} is not supported; use 0")
    suffixes = [""]
    if isinstance(module, GRU | nn.RNNBase):
        directions = ["", "_reverse"] if getattr(module, "bidirectional", False) else [""]
        suffixes = [f"_l{layer}{d}" for layer in range(module.num_layers) for d in directions]
    for suffix in suffixes:
        weight = _weight(where, module, suffix)
        _expect_whole(where, f"weight_hh{suffix}", module, weight)
        candidate = _candidate(weight)
        projection = SpectralProjection(candidate.new_ones(len(candidate)), method)
        yield Block(where, path, module, suffix, weight.shape, projection, candidate.clone())
    names = {f"weight_hh{suffix}" for suffix in suffixes}
    for name, _ in module.named_parameters(recurse=False):
        if name.startswith("weight_hh") and name not in names:
            raise _refusal(where, name)


def _expect_whole(where: str, name: str, module: Any, weight: Tensor) -> None:
    hidden, replicas = module.hidden_size, getattr(module, "replicas", None)
    gates = 4 if isinstance(module, nn.LSTM | nn.LSTMCell) else 3
    whole = [*([] if replicas is None else [replicas]), gates * hidden, hidden]
    if list(weight.shape) != whole:
        raise InputError(
            f"{where}: {name} has shape {list(weight.shape)}; expected {whole}. If it is sharded (FSDP), leave this"
            " module out of sharding or use DistributedDataParallel"
        )


def _weight(where: str, module: nn.Module, suffix: str) -> nn.Parameter:
    weight = _parameter(where, module, f"weight_hh{suffix}")
    if weight is None:
        raise _refusal(where, f"weight_hh{suffix}")
    return weight


def _parameter(where: str, module: nn.Module, name: str) -> nn.Parameter | None:
    """The parameter of that name; None if there is none."""
    value = getattr(module, name, None)
    if value is None:
        return None
    if not isinstance(value, nn.Parameter) or is_parametrized(module, name):
        raise _refusal(where, name)
    if is_traceable_wrapper_subclass(value):
        raise InputError(
            f"{where}: {name} is a {type(value).__name__}; the constraint needs the whole matrix in one plain tensor:"
            " leave this module out of sharding (FSDP, tensor parallelism) and quantisation, or use"
            " DistributedDataParallel"
        )
    if value.is_meta or value.dtype not in _TYPES:
        raise InputError(
            f"{where}: {name} is {value.dtype} on {value.device}; the constraint projects numbers in one of"
            f" {', '.join(map(str, _TYPES))}: convert it, or, on meta, load the model (to_empty, load_state_dict) first"
        )
    return value


def _refusal(where: str, name: str) -> InputError:
    return InputError(
        f"{where}: {name} is not one of the layer's own parameters (weight norm, spectral norm, pruning, FSDP?); the"
        " constraint projects and reads those: undo it first (torch.nn.utils.parametrize.remove_parametrizations,"
        " remove_weight_norm, prune.remove)"
    )


def _candidate(weight: Tensor) -> Tensor:
    """[R, H, H], a view without gradient: rows 2H to 3H."""
    hidden = weight.shape[-1]
    rows = weight.detach()[..., 2 * hidden : 3 * hidden, :]
    return rows if rows.dim() == 3 else rows.unsqueeze(0)
