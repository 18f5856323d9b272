"""Makes the recurrent modules of a model compute cell by cell, and traces them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from spectralgru.diagnosis.cells import Kind
from spectralgru.diagnosis.unrolled import Call, Cut, Passage, cells_of, unroll
from spectralgru.errors import InputError
from spectralgru.recurrent.gru import GRU

SEQUENCES = (GRU, nn.GRU, nn.LSTM, nn.RNN)
CELLS = (nn.GRUCell, nn.LSTMCell, nn.RNNCell)


@dataclass
class Trace:
    """The calls and passages of a forward pass."""

    calls: list[Call] = field(default_factory=list)
    # What each call returned; None: a chain.
    results: list[tuple[Tensor, Tensor] | None] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    chains: list[tuple[Call, Passage]] = field(default_factory=list)


@contextmanager
def unrolled(root: nn.Module, names: dict[nn.Module, str], cut: Cut = ()) -> Iterator[Trace]:
    """Inside the block the recurrent modules of `root` compute step by step, with the paths `cut`, and are traced."""
    trace, patched = Trace(), []
    for module in root.modules():
        if is_recurrent(module):
            patched.append((module, module.__dict__.get("forward")))
            run = _run_sequence if isinstance(module, SEQUENCES) else _Chains().run
            module.forward = _bound(run, module, names.get(module, ""), cut, trace)
    try:
        # Compiled code would bypass the cells. If the compiler is not imported, there is none; importing it takes
        # seconds.
        with torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext():
            yield trace
        for call, passage in trace.chains:
            call.x = torch.stack(passage.x)
    finally:
        for module, forward in patched:
            del module.__dict__["forward"]
            if forward is not None:
                module.__dict__["forward"] = forward


def _bound(
    run: Callable[..., Any], module: nn.Module, name: str, cut: Cut, trace: Trace
) -> Callable[..., Any]:
    return lambda *args, **kwargs: run(module, name, cut, trace, *args, **kwargs)


def is_recurrent(module: nn.Module) -> bool:
    """Whether the module is one that is taken apart."""
    return isinstance(module, SEQUENCES + CELLS)


def kind_of(module: nn.Module) -> Kind:
    """The equations of a recurrent module."""
    if isinstance(module, GRU):
        return "GRU, reset before" if module.reset == "before" else "GRU, reset after"
    if isinstance(module, nn.GRU | nn.GRUCell):
        return "GRU, reset after"
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        return "LSTM"
    return "RNN, relu" if getattr(module, "nonlinearity", "tanh") == "relu" else "RNN, tanh"


def _run_sequence(
    module: Any, name: str, cut: Cut, trace: Trace, input: Any, *given: Any, **named: Any
) -> Any:
    if proj_size := getattr(module, "proj_size", 0):
        raise InputError(
            f"{name}: an LSTM with proj_size={proj_size} cannot be repeated cell by cell; use proj_size=0"
        )
    (state, *starts) = [*given, *named.values()] or [None]
    ours = isinstance(module, GRU)
    packed = isinstance(input, PackedSequence)
    active, x = None, input
    if packed:
        x, lengths = pad_packed_sequence(input)
        active = torch.arange(len(x))[:, None].lt(lengths).to(x.device)
    is_single = not ours and x.dim() == 2
    if is_single:
        x = x.unsqueeze(1)
    elif not ours and not packed and module.batch_first:
        x = x.transpose(0, 1)
    directions = 2 if getattr(module, "bidirectional", False) else 1
    call = Call(name, kind_of(module), module.num_layers, directions, x, x, active)
    call.starts = named.get("starts", starts[0] if starts else None)
    state = named.get("h0", state) if ours else state
    call.state = _whole_state(call, module, state, is_single)
    cells = cells_of(call, lambda weight: getattr(module, weight.rpartition(".")[2], None))
    output, last, passages = unroll(call, cells, cut, module.dropout if module.training else 0.0)
    trace.calls.append(call)
    trace.results.append((output, last))
    trace.passages += passages
    if packed:
        rows = output.index_select(1, input.sorted_indices) if input.sorted_indices is not None else output
        data = torch.cat([rows[t, :n] for t, n in enumerate(input.batch_sizes.tolist())])
        return PackedSequence(data, *input[1:]), _parts(call, last)
    if is_single:
        output, last = output.squeeze(1), last.squeeze(1)
    elif not ours and module.batch_first:
        output = output.transpose(0, 1)
    return output, _parts(call, last)


def _whole_state(call: Call, module: Any, state: Any, is_single: bool) -> Tensor:
    if state is None:
        size = module.hidden_size * (2 if call.kind == "LSTM" else 1)
        lead, count = call.x.shape[:-3], call.layers * call.directions
        return call.x.new_zeros(*lead, count, call.x.shape[-2], size)
    whole: Tensor = torch.cat(state, -1) if call.kind == "LSTM" else state
    return whole.unsqueeze(1) if is_single else whole


def _parts(call: Call, state: Tensor) -> Any:
    return state.chunk(2, -1) if call.kind == "LSTM" else state


class _Chains:
    """The calls of one cell; calls that continue one another are steps of one passage."""

    def __init__(self) -> None:
        self.ends: list[tuple[Tensor, Passage]] = []  # what the last step of each chain returned

    def run(self, module: Any, name: str, cut: Cut, trace: Trace, input: Tensor, hx: Any = None) -> Any:
        call = Call(name, kind_of(module), 1, 1, input, input, is_chain=True)
        x = input.unsqueeze(0) if input.dim() == 1 else input
        cell = cells_of(call, lambda weight: getattr(module, weight.rpartition(".")[2], None))[0]
        before = x.new_zeros(len(x), cell.state_size) if hx is None else hx
        given = hx[0] if isinstance(hx, tuple) else hx
        state = torch.cat(tuple(before), -1) if isinstance(before, tuple | list) else before
        state = state.unsqueeze(0) if state.dim() == 1 else state
        index = next((i for i, end in enumerate(self.ends) if end[0] is given), None)
        if index is None:
            passage = Passage(call.weight_names()[0], cell, [], is_chain=True)
            call.state = state.unsqueeze(0)
            trace.calls.append(call)
            trace.passages.append(passage)
            trace.results.append(None)
            trace.chains.append((call, passage))
        else:
            passage = self.ends.pop(index)[1]
        passage.x.append(x)
        after = passage.step(cell.project(x.unsqueeze(0))[0], state, cut)
        parts = after.chunk(2, -1) if call.kind == "LSTM" else (after,)
        parts = tuple(part.squeeze(0) for part in parts) if input.dim() == 1 else parts
        self.ends.append((parts[0], passage))
        return parts if call.kind == "LSTM" else parts[0]
