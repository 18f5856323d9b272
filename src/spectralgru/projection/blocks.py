"""The matrices that a `SpectralConstraint` keeps below their bounds: found in a module, read, projected."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, inf, isfinite, nan
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from spectralgru.errors import InputError, RunError
from spectralgru.projection.clip import Solver
from spectralgru.projection.growth_bound import growth_bound
from spectralgru.projection.kept import Kept
from spectralgru.projection.tracked import SpectralProjection
from spectralgru.recurrent.gru import GRU

_LSTMS, _RNNS = (nn.LSTM, nn.LSTMCell), (nn.RNN, nn.RNNCell)
MODULES = (GRU, nn.GRU, nn.GRUCell, *_LSTMS, *_RNNS)
_TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
# A lower limit is an error; only an LSTM can have one. W_hg h, with the state in [-1, 1], would be lost in the rounding
# of half precision, and the projection, which never lets W_hg grow again, would delete the recurrence instead of
# stabilising it. With the other gates half open this corresponds to a forget bias of 8.
_SMALLEST_LIMIT = 1e-3


@dataclass
class Block:
    """One recurrent weight, with the projections of its candidate's block and, if bounded, of its gates'.

    Weight and biases are looked up at every use, since assignment and `load_state_dict(assign=True)` replace them.
    """

    where: str  # the module's name in messages
    path: str  # of the module inside the model
    module: nn.Module
    suffix: str  # of the names of its weight and biases: "", "_l0", "_l0_reverse"
    shape: torch.Size  # of the weight: [3H, H] and the like, with our GRU's replicas [R, 3H, H]
    kept: dict[str, Kept]  # by name of the block, `candidate` first

    def expect_present(self, model: nn.Module) -> None:
        """Refuse a model whose recurrent module was replaced."""
        there: nn.Module | None = model
        for name in filter(None, self.path.split(".")):
            there = None if there is None else there._modules.get(name)
        if there is not self.module:
            raise InputError(
                f"{self.where} is no longer the module that was constrained: make a new SpectralConstraint"
            )

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
        """The biases that the bound depends on, as they are now, by name; none for an RNN."""
        kinds = () if isinstance(self.module, _RNNS) else ("bias_ih", "bias_hh")
        names = [f"{kind}{self.suffix}" for kind in kinds]
        biases_by_name = {name: _parameter(self.where, self.module, name) for name in names}
        return {name: bias for name, bias in biases_by_name.items() if bias is not None}

    def matrices(self, weight: Tensor | None = None) -> dict[str, Tensor]:
        """The weight's square blocks [R, H, H] by name, views without gradient."""
        return _matrices(self.module, self.weight() if weight is None else weight)

    def settle(self) -> None:
        """Undo the rounding that a new constraint caused in weights that were projected before."""
        matrices = self.matrices()
        for part, kept in self.kept.items():
            kept.settle(matrices[part])

    def growth_bound(self, cell: float) -> float:
        """See `SpectralConstraint.growth_bound`; the maximum over replicas."""
        shift = None
        if isinstance(self.module, nn.GRU | nn.GRUCell) or getattr(self.module, "reset", "") == "after":
            matrices = self.matrices()["candidate"]
            bias = self.biases().get(f"bias_hh{self.suffix}")
            shift = matrices.new_zeros(1) if bias is None else bias.detach().chunk(3)[2]
        return float(growth_bound(self.matrices(), shift, cell).amax())

    def stability_limit(self) -> float:
        """The origin is stable if sigma_1 of the candidate is below this; NaN if the biases are not finite.

        2 for a GRU or LSTM without biases; 1 for an RNN, which contracts everywhere below it.

        Raises:
            RunError: the limit is too small to leave a recurrence.
        """
        if isinstance(self.module, _RNNS):
            return 1.0
        biases = self.biases()
        if not biases:
            return 2.0
        first, *others = (bias.detach() for bias in biases.values())
        total = sum(others, first.double())
        if not isfinite(float(total.sum())):
            return nan
        if not isinstance(self.module, _LSTMS):
            reset = float(total[: len(total) // 3].max())
            return 1 + exp(-reset) if reset > -700 else inf
        # Logarithms keep gates close to 0 and 1 exact: 1 - f = sigmoid(-b_f).
        i, f, _, o = total.chunk(4)
        limit = float((-(logsigmoid(i) - logsigmoid(-f)).max() - logsigmoid(o).max()).exp())
        if limit < _SMALLEST_LIMIT:
            raise RunError(
                f"{self.where}: {' + '.join(biases)}, up to {float(f.max()):.4g} at the forget gate, limit sigma_1 of"
                f" the candidate of weight_hh{self.suffix} to {limit:.2g}; below {_SMALLEST_LIMIT:g} projecting would"
                " delete its recurrence: lower the forget gate's bias (rows H to 2H; during training the learning rate)"
                " or leave this module out"
            )
        return limit


def find_blocks(root: nn.Module, method: Solver, gates: bool) -> dict[str, Block]:
    """The recurrent weights in a module, by name; `gates`: with their gates, not the candidate alone.

    Raises:
        InputError: there are none, or one cannot be projected.
    """
    blocks = {}
    for path, prefix, module in named_modules(root):
        if isinstance(module, MODULES):
            for block in _blocks_of(path, prefix or type(module).__name__, module, method, gates):
                blocks[f"{prefix}.weight_hh{block.suffix}".removeprefix(".")] = block
    if not blocks:
        names = ", ".join(f"{m.__module__.split('.')[0]}.{m.__name__}" for m in MODULES)
        raise InputError(f"{type(root).__name__}: contains none of {names}")
    return blocks


def key(name: str, part: str) -> str:
    """Name of a block: the candidate's is that of its weight, others add theirs, as in `rnn.weight_hh_l0.reset`."""
    return name if part == "candidate" else f"{name}.{part}"


def named_modules(root: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Path, name, module. Names omit the levels of DDP and torch.compile, so that states fit with and without them."""
    names = {"": ""}
    modules = dict(root.named_modules())
    for path, module in modules.items():
        if path:
            parent, _, leaf = path.rpartition(".")
            inside = leaf == "_orig_mod" or isinstance(modules[parent], WRAPPERS)
            names[path] = names[parent] if inside else f"{names[parent]}.{leaf}".removeprefix(".")
        yield path, names[path], module


def _blocks_of(path: str, where: str, module: nn.Module, method: Solver, gates: bool) -> Iterator[Block]:
    """One block for each layer and direction."""
    if proj_size := getattr(module, "proj_size", 0):
        raise InputError(f"{where}: LSTM with proj_size={proj_size} is not supported; use 0")
    suffixes = [""]
    if isinstance(module, GRU | nn.RNNBase):
        directions = ["", "_reverse"] if getattr(module, "bidirectional", False) else [""]
        suffixes = [f"_l{layer}{d}" for layer in range(module.num_layers) for d in directions]
    for suffix in suffixes:
        weight = _weight(where, module, suffix)
        _expect_whole(where, f"weight_hh{suffix}", module, weight)
        matrices = _matrices(module, weight)
        kept = {
            name: Kept(
                SpectralProjection(matrices[name].new_ones(len(matrices[name])), method),
                matrices[name].clone(),
            )
            for name in sorted(matrices, key="candidate".__ne__)
            if gates or name == "candidate"
        }
        yield Block(where, path, module, suffix, weight.shape, kept)
    names = {f"weight_hh{suffix}" for suffix in suffixes}
    for name, _ in module.named_parameters(recurse=False):
        if name.startswith("weight_hh") and name not in names:
            raise _refusal(where, name)


def _expect_whole(where: str, name: str, module: Any, weight: Tensor) -> None:
    hidden, replicas = module.hidden_size, getattr(module, "replicas", None)
    whole = [*([] if replicas is None else [replicas]), len(_names(module)) * hidden, hidden]
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
    value = module._parameters.get(name)  # parametrised and pruned ones are kept elsewhere
    if value is None:
        if getattr(module, name, None) is not None:
            raise _refusal(where, name)
        return None
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


def _names(module: nn.Module) -> tuple[str, ...]:
    """Names of the blocks of a recurrent weight, in the order of its rows."""
    if isinstance(module, _RNNS):
        return ("candidate",)
    if isinstance(module, _LSTMS):
        return "input", "forget", "candidate", "output"
    return "reset", "update", "candidate"


def _matrices(module: nn.Module, weight: Tensor) -> dict[str, Tensor]:
    rows = weight.detach() if weight.dim() == 3 else weight.detach().unsqueeze(0)
    names = _names(module)
    return dict(zip(names, rows.chunk(len(names), 1), strict=True))
