"""Runs a batch again, for the gradients of the weights and of every state on the way back through time."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from spectralgru.diagnosis.generators import kept_random, random_states
from spectralgru.diagnosis.naming import plain_names, plain_names_of, unwrapped
from spectralgru.diagnosis.traced import Trace, unrolled
from spectralgru.diagnosis.unrolled import Call, Cut, Passage, cells_of, unroll
from spectralgru.errors import InputError
from spectralgru.projection.blocks import named_modules


@dataclass
class Growth:
    """How a gradient changes on its way back, by step in the order of the passage and by lane, N = [R *] B."""

    passage: Passage
    gradient: Tensor  # [T, N], |dL/d state| after each step
    factor: Tensor  # [T, N], by which the step multiplies it on the way back

    def worst_lane(self) -> int:
        """The lane in which the gradient becomes largest."""
        return int(self.gradient.nan_to_num(torch.inf).amax(0).argmax())

    def window(self, lane: int) -> tuple[int, int, float]:
        """The steps to and from which the gradient grows most on its way back to its peak, and by how much."""
        gradient, logs = self.gradient[:, lane].nan_to_num(torch.inf), self.factor[:, lane].double().log()
        peak = int(gradient.argmax())
        sums = logs[peak + 1 :].nan_to_num(torch.inf).cumsum(0)
        if not len(sums) or not sums.max() > 0:
            return peak, peak, 1.0
        last = int(sums.argmax())
        return peak, peak + 1 + last, float(sums[last].exp())


@dataclass
class Outcome:
    """The result of a replay."""

    objective: float
    gradients: dict[str, Tensor]  # by the parameter's name
    growths: list[Growth]
    trace: Trace
    seeds: list[list[Tensor]] = field(default_factory=list)  # what came back to each call from outside

    @property
    def norm(self) -> float:
        """Norm of all gradients together."""
        return float(torch.stack([g.double().norm() for g in self.gradients.values()]).norm())


class Replay:
    """Base class of the two replays: `run` differentiates what `forward` computes."""

    parameters: dict[str, Tensor]
    has_loss = False

    def forward(self, parameters: dict[str, Tensor], cut: Cut) -> tuple[Tensor, Trace]:
        """The scalar to differentiate, and the trace of its computation."""
        raise NotImplementedError

    def run(self, cut: Cut = (), parameters: Mapping[str, Tensor] | None = None) -> Outcome:
        """Run forward and back, with the paths `cut`, and with other `parameters` where given."""
        chosen = {**self.parameters, **(parameters or {})}
        leaves = {n: p.detach().requires_grad_() for n, p in chosen.items() if p.is_floating_point()}
        with torch.enable_grad():
            objective, trace = self.forward({**chosen, **leaves}, cut)
            if not trace.passages:
                raise InputError("the model ran no GRU, LSTM or RNN, nor a cell of one, on this batch")
            if not objective.requires_grad:
                raise InputError("the loss does not depend on the model's parameters: return one that does")
            states = [t for p in trace.passages for t in (*p.states, *p.entering)]
            results = [t for r in trace.results if r is not None for t in r]
            of = [*leaves.values(), *states, *results]
            gradients = torch.autograd.grad(objective, of, allow_unused=True)
        known = [torch.zeros_like(t) if g is None else g for g, t in zip(gradients, of, strict=True)]
        back = iter(known[len(leaves) :])
        states_back = [
            ([next(back) for _ in p.states], [next(back) for _ in p.states]) for p in trace.passages
        ]
        seeds = [None if r is None else [next(back), next(back)] for r in trace.results]
        chains = iter([b for p, b in zip(trace.passages, states_back, strict=True) if p.is_chain])
        return Outcome(
            float(objective.detach()),
            dict(zip(leaves, known, strict=False)),
            [_growth(p, *b) for p, b in zip(trace.passages, states_back, strict=True)],
            trace,
            [[_direct(*next(chains))] if s is None else s for s in seeds],
        )


def _growth(passage: Passage, after: list[Tensor], entering: list[Tensor]) -> Growth:
    gradient, back = (
        torch.stack([g.double().norm(dim=-1).flatten() for g in grads]) for grads in (after, entering)
    )
    return Growth(passage, gradient, torch.where(gradient > 0, back / gradient, 0))


def _direct(after: list[Tensor], entering: list[Tensor]) -> Tensor:
    """The gradients that come to the states [T, B, S] of a chain from outside it."""
    return torch.stack(after) - torch.stack([*entering[1:], torch.zeros_like(entering[0])])


class ModelReplay(Replay):
    """A model that runs on its batch; the model itself is not changed."""

    def __init__(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        objective: Callable[[Any], Tensor],
        random: Mapping[str, Any] | None = None,
        dtype: torch.dtype | None = None,
        autocast: Sequence[str] = (),
        parameters: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Take the model as it is now, or with the parameters and buffers of a state dict.

        `autocast`: names of the device and the type, or nothing.
        """
        self.names = {module: name for _, name, module in named_modules(model)}
        self.model = unwrapped(model)
        self.objective, self.has_loss = objective, True
        self.autocast = (autocast[0], getattr(torch, autocast[1])) if autocast else None
        self.random = random or random_states()
        self._given = model, args, kwargs
        self.args, self.kwargs = cast((args, kwargs), dtype)
        of_model = plain_names(model, nn.Module.named_parameters)
        state = {**of_model, **plain_names(model, nn.Module.named_buffers)}
        state |= {name: tensor for name, tensor in (parameters or {}).items() if name in state}
        state = cast({name: tensor.detach() for name, tensor in state.items()}, dtype)
        trained = {name for name, parameter in of_model.items() if parameter.requires_grad}
        self.parameters = {name: tensor for name, tensor in state.items() if name in trained}
        self.fixed = {name: tensor for name, tensor in state.items() if name not in trained}
        self._keys = {
            plain: name for name, plain in plain_names_of(self.model, self.names).items() if plain in state
        }

    def forward(self, parameters: dict[str, Tensor], cut: Cut) -> tuple[Tensor, Trace]:
        """The loss of the batch."""
        fixed = {name: tensor.clone() for name, tensor in self.fixed.items()}
        with kept_random(self.random), self._precision(), unrolled(self.model, self.names, cut) as trace:
            state = {self._keys[name]: tensor for name, tensor in {**fixed, **parameters}.items()}
            output = functional_call(self.model, state, self.args, self.kwargs)
            loss = self.objective(output)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            what = f"a tensor {list(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise InputError(
                f"the loss is {what}; give loss=, a function of the model's output with one number"
            )
        return loss.sum(), trace

    def in_float64(self) -> "ModelReplay":
        """The same with parameters and batch in float64."""
        tensors = {**self.parameters, **self.fixed}
        wide = ModelReplay(*self._given, self.objective, self.random, torch.float64, parameters=tensors)
        wide.has_loss, wide.names = self.has_loss, self.names
        return wide

    def _precision(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(*self.autocast)


class FiledReplay(Replay):
    """Recorded calls of recurrent modules, with the gradients that came back to them; needs no model."""

    def __init__(
        self, calls: list[Call], seeds: list[list[Tensor]], parameters: Mapping[str, Tensor]
    ) -> None:
        self.calls = [Call(**cast(vars(call), torch.float64)) for call in calls]
        self.seeds = cast(seeds, torch.float64)
        self.parameters = {}
        for call in calls:
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                axes = call.x.dim() - (2 if part.startswith("bias") else 1)
                for name in (w.replace("weight_hh", part) for w in call.weight_names()):
                    if name not in parameters:
                        continue
                    if parameters[name].dim() != axes:
                        shape = list(parameters[name].shape)
                        raise InputError(f"the recorded {name} has the shape {shape}: a damaged file")
                    self.parameters[name] = parameters[name].double()

    def forward(self, parameters: dict[str, Tensor], cut: Cut) -> tuple[Tensor, Trace]:
        """A scalar whose gradients at the ends of the calls are the recorded ones."""
        trace, total = Trace(), torch.zeros((), dtype=torch.float64)
        for call, seeds in zip(self.calls, self.seeds, strict=True):
            cells = cells_of(call, parameters.get)
            output, last, passages = unroll(call, cells, cut)
            trace.calls.append(call)
            trace.results.append(None if call.is_chain else (output, last))
            trace.passages += passages
            for result, seed in zip((output, last), seeds, strict=False):
                total = total + (result * seed).sum()
        return total, trace


def cast(tree: Any, dtype: torch.dtype | None) -> Any:
    """The tree with its floating-point tensors in `dtype`; None: unchanged."""
    if dtype is None:
        return tree
    return pytree.tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, tree)
