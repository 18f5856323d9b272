"""The call of a recurrent module, in one form for all kinds, computed cell by cell.

Every state is a node of autograd's graph, and every path between states can be cut.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import dropout

from spectralgru.diagnosis.cells import Cell, Kind
from spectralgru.errors import InputError

Cut = Collection[str]


@dataclass
class Call:
    """What a recurrent module was given. A chain of calls of a cell, each with the last one's state, is one call."""

    module: str  # its name in the model
    kind: Kind
    layers: int
    directions: int
    x: Tensor  # [T, B, I], with replicas [R, T, B, I]
    state: Tensor  # before the first step [L * directions, B, S], with replicas [R, L, B, H]
    active: Tensor | None = None  # bool [T, B], whether a packed sequence has that step; None: all have
    starts: Tensor | None = None  # bool [T, B], see `gru_layer`
    masks: list[Tensor] = field(default_factory=list)  # dropout factors between the layers
    is_chain: bool = (
        False  # of calls of a cell: it returns every state [T, B, S], not outputs and last states
    )

    def weight_names(self) -> list[str]:
        """Names of the recurrent weights in the model, layer by layer, forward direction first."""
        ends = ("", "_reverse")[: self.directions]
        suffixes = [f"_l{layer}{end}" for layer in range(self.layers) for end in ends]
        names = [""] if self.is_chain else suffixes
        return [f"{self.module}.weight_hh{name}".removeprefix(".") for name in names]


@dataclass
class Passage:
    """One layer in one direction through a sequence; steps in the order in which they are computed."""

    weight: str  # name of its weight_hh in the model
    cell: Cell
    x: list[Tensor]  # [*, B, I] for each step
    active: Tensor | None = None  # bool [T, B], in the order of the steps
    starts: Tensor | None = None
    is_chain: bool = False
    is_reverse: bool = False
    entering: list[Tensor] = field(default_factory=list)  # the state as each step sees it, [*, B, S]
    states: list[Tensor] = field(default_factory=list)  # after each step

    def of_lane(self, lane: int) -> tuple[Cell, Tensor, Tensor]:
        """The cell, inputs [T, 1, I] and first state [1, S] of one lane, without the steps it lacks."""
        first = self.entering[0].detach()
        replica, lane = divmod(lane, first.shape[-2])
        cell = self.cell if first.dim() == 2 else self.cell.replica(replica)
        x = torch.stack([x_t.detach() if x_t.dim() == 2 else x_t.detach()[replica] for x_t in self.x])
        x = x[:, lane : lane + 1]
        x = x if self.active is None else x[self.active[:, lane]]
        return cell, x, (first if first.dim() == 2 else first[replica])[lane : lane + 1]

    def starts_of(self, lane: int) -> Tensor | None:
        """Where a sequence begins in that lane, [T, 1]."""
        if self.starts is None:
            return None
        replica, lane = divmod(lane, self.entering[0].shape[-2])
        starts = self.starts if self.starts.dim() == 2 else self.starts[replica]
        return starts[:, lane : lane + 1]

    def step(self, a: Tensor, state: Tensor, cut: Cut) -> Tensor:
        """Compute one more step; return the state after it."""
        # A separate node of the graph, whose gradient comes through this step alone.
        seen = state.view_as(state) if state.requires_grad else state.detach().requires_grad_()
        after = self.cell.step(a, seen, cut)
        if self.active is not None:
            after = torch.where(self.active[len(self.states)].unsqueeze(-1), after, seen)
        self.entering.append(seen)
        self.states.append(after)
        return after


def cells_of(call: Call, find: Callable[[str], Tensor | None]) -> list[Cell]:
    """The cells of a call; `find` gives a weight or bias by its name in the model, or None."""
    cells = []
    for weight in call.weight_names():
        parts = [
            find(weight.replace("weight_hh", p)) for p in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        if parts[0] is None or parts[1] is None:
            raise InputError(f"{call.module or 'the module'}: its {weight} is missing")
        cells.append(Cell(call.kind, parts[0], parts[1], *parts[2:]))
    return cells


def unroll(
    call: Call, cells: list[Cell], cut: Cut, dropped: float = 0.0
) -> tuple[Tensor, Tensor, list[Passage]]:
    """Outputs [T, B, directions * H], last states shaped as `call.state`, and the passages.

    If `call.masks` is empty and `dropped` > 0, the masks between the layers are drawn and added to it.
    """
    x, axis, passages, last = call.x, call.state.dim() - 3, [], []
    drawn = not call.masks
    for layer in range(call.layers):
        if layer and drawn and dropped:
            call.masks.append(dropout(torch.ones_like(x), dropped))
        x = x * call.masks[layer - 1] if layer and call.masks else x
        outputs = []
        for direction in range(call.directions):
            index = layer * call.directions + direction
            passage = _pass(call, cells[index], index, x, call.state.select(axis, index), cut)
            passages.append(passage)
            states = torch.stack(passage.states[:: -1 if direction else 1], -3)
            output = states if call.is_chain else states[..., : passage.cell.hidden_size]
            outputs.append(output if call.active is None else output * call.active.unsqueeze(-1))
            last.append(passage.states[-1])
        x = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
    return x, torch.stack(last, axis), passages


def _pass(call: Call, cell: Cell, index: int, x: Tensor, state: Tensor, cut: Cut) -> Passage:
    is_reverse, active = bool(index % call.directions), call.active
    if is_reverse:
        x, active = x.flip(-3), None if active is None else active.flip(0)
    passage = Passage(
        call.weight_names()[index], cell, list(x.unbind(-3)), active, call.starts, call.is_chain, is_reverse
    )
    for t, a in enumerate(cell.project(x).unbind(-3)):
        if call.starts is not None:
            state = state.masked_fill(call.starts.select(-2, t).unsqueeze(-1), 0)
        state = passage.step(a, state, cut)
    return passage
