"""The spectral constraint for models made of PyTorch's recurrent modules: two lines in an existing training script.

    constraint = SpectralConstraint(model, delta=0.2)
    constraint.attach(optimizer)

Which bound makes the origin stable, with and without biases, is derived in docs/engine.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spectralgru.errors import InputError
from spectralgru.gru import GRU
from spectralgru.kernels.clip import Method
from spectralgru.projection import ProjectionReport, SpectralProjection

_MODULES = (GRU, nn.GRU, nn.GRUCell, nn.LSTM, nn.LSTMCell)


@dataclass
class _Block:
    """The candidate's rows of one recurrent weight, and what bounds them."""

    weight: nn.Parameter  # [3H or 4H, H], with our GRU's replicas [R, 3H, H]; the candidate is rows 2H to 3H
    biases: tuple[Tensor, ...]  # [3H] or [4H] each: of the input and of the recurrent product
    is_lstm: bool
    projection: SpectralProjection
    last: Tensor  # [R, H, H], candidate after the last projection

    def candidate(self) -> Tensor:
        """[R, H, H], a view."""
        hidden = self.weight.shape[-1]
        rows = self.weight.detach()[..., 2 * hidden : 3 * hidden, :]
        return rows if rows.dim() == 3 else rows.unsqueeze(0)

    def stability_limit(self) -> float:
        """The origin is stable when sigma_1 of the candidate is below this; 2 without biases."""
        if not self.biases:
            return 2.0
        total = torch.stack([bias.detach().double() for bias in self.biases]).sum(0)
        gates = torch.sigmoid(total).chunk(4 if self.is_lstm else 3)
        if self.is_lstm:
            i, f, _, o = gates
            return 1 / float((i / (1 - f)).max() * o.max())
        return 1 / float(gates[0].max())


class SpectralConstraint:
    """Keeps the recurrent candidate weights of every GRU and LSTM in a module where the origin is stable.

    After each optimiser step the largest singular value of each candidate block (W_hn, W_hg) is brought down to
    (1 - delta / 2) times its stability limit, which is 2 - delta for a network without biases (Kanai et al., 2017).
    Handles spectralgru.GRU (with replicas, too), torch.nn.GRU, GRUCell, LSTM and LSTMCell, any number of layers, both
    directions. Under DistributedDataParallel every rank projects the same weights to the same result.
    """

    def __init__(self, module: nn.Module, delta: float = 0.2, method: Method = "auto") -> None:
        """Find the recurrent modules in `module` and project them once.

        Args:
            module: the model, or one recurrent module; may be wrapped (DDP) or compiled.
            delta: distance from the edge of stability, in (0, 2); the paper's hyper-parameter.
            method: see `clip_singular_values`.

        Raises:
            InputError: delta out of range, nothing recurrent found, or an LSTM with projections.
        """
        if not 0 < delta < 2:
            raise InputError(f"delta={delta}: must be above 0 and below 2")
        self.delta = delta
        self._blocks: dict[str, _Block] = {}
        seen: set[int] = set()
        for prefix, part in module.named_modules():
            if not isinstance(part, _MODULES):
                continue
            if getattr(part, "proj_size", 0):
                raise InputError(
                    f"{prefix or 'module'}: LSTM with proj_size={part.proj_size} is not supported; use 0"
                )
            for name, weight, biases in _recurrent_weights(part):
                if id(weight) not in seen:
                    seen.add(id(weight))
                    full = f"{prefix}.{name}" if prefix else name
                    self._blocks[full] = _make_block(
                        weight, biases, isinstance(part, nn.LSTM | nn.LSTMCell), method
                    )
        if not self._blocks:
            names = ", ".join(f"{m.__module__.split('.')[0]}.{m.__name__}" for m in _MODULES)
            raise InputError(f"{type(module).__name__}: contains none of {names}")
        self.project_()

    @torch.no_grad()
    def project_(self) -> dict[str, ProjectionReport]:
        """Project every block now, in place; what was found, by the weight's name in the module."""
        reports = {}
        for name, block in self._blocks.items():
            candidate = block.candidate()
            block.last = block.last.to(candidate.device)
            moved = torch.linalg.vector_norm(candidate - block.last, dim=(1, 2), dtype=torch.float64)
            bound = (1 - self.delta / 2) * block.stability_limit()
            block.projection.max_sv = [bound] * len(candidate)
            reports[name] = block.projection.project_(candidate, moved)
            block.last.copy_(candidate)
        return reports

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
            block.projection.load_state_dict(state[name]["projection"])
            block.last = state[name]["last"].clone()


def _recurrent_weights(module: nn.Module) -> Iterator[tuple[str, nn.Parameter, tuple[Tensor, ...]]]:
    """Name, weight and biases of each recurrent weight of a module (`weight_hh`, `weight_hh_l0_reverse`, ...)."""
    parameters = dict(module.named_parameters(recurse=False))
    for name, weight in parameters.items():
        if name.startswith("weight_hh"):
            suffix = name.removeprefix("weight_hh")
            biases = (parameters.get(f"bias_ih{suffix}"), parameters.get(f"bias_hh{suffix}"))
            yield name, weight, tuple(b for b in biases if b is not None)


def _make_block(weight: nn.Parameter, biases: tuple[Tensor, ...], is_lstm: bool, method: Method) -> _Block:
    replicas = weight.shape[0] if weight.dim() == 3 else 1
    projection = SpectralProjection(torch.ones(replicas), method)
    block = _Block(weight, biases, is_lstm, projection, torch.empty(0))
    block.last = block.candidate().clone()
    return block
