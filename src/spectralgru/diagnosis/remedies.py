"""Tries each remedy on the batch: its norms now, and after the step that it leads to."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spectralgru.constraint import SpectralConstraint
from spectralgru.diagnosis.cells import Cell
from spectralgru.diagnosis.replay import Outcome, Replay
from spectralgru.errors import InputError
from spectralgru.recurrent.gru import GRU


def tried(
    replay: Replay,
    whole: Outcome,
    rates: Mapping[str, float],
    *,
    delta: float,
    gates: float,
    clip: float,
) -> list[dict[str, Any]]:
    """A row for each remedy: norm and growth on this batch, now and after a plain step, and the loss if it is known.

    Args:
        replay: of the batch.
        whole: the outcome of the replay.
        rates: learning rate by parameter; if empty, no step is tried.
        delta, gates: of the constraint.
        clip: norm to which the gradient is clipped.
    """
    rows = [_row("as it was", replay, whole, rates)]
    bounded = {
        f"constraint, delta {delta:g}": {"delta": delta},
        f"constraint and gates at most {gates:g}": {"delta": delta, "gates": gates},
    }
    if all(growth.passage.cell.kind.startswith("RNN") for growth in whole.growths):
        del bounded[f"constraint and gates at most {gates:g}"]  # it has none
    for name, settings in bounded.items():
        try:
            parameters = _bounded(whole, settings)
        except InputError as error:
            rows.append({"remedy": name, "note": str(error)})
            continue
        rows.append(_row(name, replay, replay.run(parameters=parameters), rates, parameters))
    if rates:
        rows.append(_row(f"gradient clipped at {clip:.3g}", replay, whole, rates, clip=clip))
        lower = {name: rate / 10 for name, rate in rates.items()}
        rows.append(_row("a tenth of the learning rate", replay, whole, lower))
    return rows


def _row(
    name: str,
    replay: Replay,
    outcome: Outcome,
    rates: Mapping[str, float],
    parameters: Mapping[str, Tensor] | None = None,
    clip: float = float("inf"),
) -> dict[str, Any]:
    row: dict[str, Any] = {"remedy": name, "norm": outcome.norm, "growth": largest_growth(outcome)}
    if replay.has_loss:
        row["loss"] = outcome.objective
    if rates:
        factor = min(1.0, clip / max(outcome.norm, 1e-300))
        current = {**replay.parameters, **(parameters or {})}
        stepped = {
            n: current[n].detach() - rates.get(n, 0.0) * factor * g for n, g in outcome.gradients.items()
        }
        after = replay.run(parameters=stepped)
        row |= {"norm after": after.norm, "growth after": largest_growth(after)}
        if replay.has_loss:
            row["loss after"] = after.objective
    return row


def largest_growth(outcome: Outcome) -> float:
    """The largest growth over layers, each in the lane where its gradient is largest."""
    return max(growth.window(growth.worst_lane())[2] for growth in outcome.growths)


def _bounded(whole: Outcome, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The recurrent weights as a constraint would keep them."""
    cells = {growth.passage.weight: growth.passage.cell for growth in whole.growths}
    delta = {"delta": settings["delta"]}
    return {n: _projected(c, delta if c.kind[0] == "R" else settings) for n, c in cells.items()}


@torch.no_grad()
def _projected(cell: Cell, settings: Mapping[str, Any]) -> Tensor:
    width, hidden = cell.weight_ih.shape[-1], cell.hidden_size
    replicas = len(cell.weight_hh) if cell.weight_hh.dim() == 3 else None
    reset: Any = "before" if cell.kind == "GRU, reset before" else "after"
    module: nn.Module
    with torch.device("meta"):  # draws nothing
        if reset == "before" or replicas:
            module, suffix = GRU(width, hidden, reset=reset, replicas=replicas), "_l0"
        else:
            form = {"G": nn.GRUCell, "L": nn.LSTMCell, "R": nn.RNNCell}[cell.kind[0]]
            module, suffix = form(width, hidden, bias=cell.bias_ih is not None), ""
    for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        if (value := getattr(cell, part)) is not None:
            setattr(module, part + suffix, nn.Parameter(value.detach().clone()))
    SpectralConstraint(module, **settings)
    weight: Tensor = getattr(module, f"weight_hh{suffix}").detach()
    return weight
