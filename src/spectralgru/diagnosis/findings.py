"""The findings of an autopsy: as numbers, in words, and as a figure."""

from dataclasses import dataclass, field
from math import exp
from pathlib import Path
from typing import Any

from spectralgru.diagnosis.causes import Cause
from spectralgru.errors import InputError
from spectralgru.files import atomic_path


@dataclass
class Layer:
    """What happened in one layer and direction; steps count from 0 in the order of the sequence.

    Attributes:
        weight: name of its recurrent weight.
        lane: the sequence of the batch in which the gradient is largest.
        first: the step to which the gradient grew on its way back.
        last: the step from which it grew.
        growth: factor by which |dL/dh| grew from `last` back to `first`.
        exponents: finite-time Lyapunov exponents over the whole sequence in this lane, in descending order.
        radius: spectral radius of the step's Jacobian at the zero state.
        sigma: sigma_1 of each block.
        gradient: |dL/dh| after each step, in this lane.
        factors: by which each step multiplies it on the way back.
    """

    weight: str
    lane: int
    first: int
    last: int
    growth: float
    exponents: list[float]
    radius: float
    sigma: dict[str, float]
    gradient: list[float]
    factors: list[float]


@dataclass
class Autopsy:
    """The findings; `print` shows them in words, `figure` draws them.

    Attributes:
        cause: why the gradient is large: its `kind`, `where` and `words`.
        norm: of the whole gradient.
        loss: of the batch; None if unknown.
        layers: one for each layer and direction.
        cuts: by path cut in all layers: norm of the gradient, and growth in the worst layer.
        remedies: the rows of the table of remedies.
        reason: why the recording was written.
        remarks: what is missing or was done differently, and why.
    """

    cause: Cause
    norm: float
    loss: float | None
    layers: list[Layer]
    cuts: dict[str, tuple[float, float]]
    remedies: list[dict[str, Any]]
    reason: str = ""
    remarks: list[str] = field(default_factory=list)

    @property
    def worst(self) -> Layer:
        """The layer in which the gradient grew most."""
        return max(self.layers, key=lambda layer: layer.growth)

    def __str__(self) -> str:
        return _described(self)

    def figure(self, path: Path | str) -> None:
        """Draw the gradient's way back through every layer; needs matplotlib.

        Args:
            path: of the file; its suffix decides the format.

        Raises:
            InputError: matplotlib is not installed.
        """
        _draw(self, Path(path))


def _described(found: Autopsy) -> str:
    lines = [f"recorded because {found.reason}"] if found.reason else []
    lines += [f"cause: {found.cause.kind}{f' ({found.cause.where})' if found.cause.where else ''}"]
    lines += [f"  {found.cause.words}", ""]
    lines += [
        f"gradient's norm {found.norm:.4g}" + ("" if found.loss is None else f", loss {found.loss:.4g}"),
        "",
    ]
    lines += ["where it grew on its way back, layer by layer (in the lane where it becomes largest)"]
    lines += _table([_layer(layer) for layer in found.layers])
    lines += ["", f"with one path cut out of the gradient (growth: in {found.worst.weight})"]
    nothing = {"cut": "nothing", "norm": found.norm, "growth": found.worst.growth}
    lines += _table(
        [
            nothing,
            *({"cut": path, "norm": norm, "growth": growth} for path, (norm, growth) in found.cuts.items()),
        ]
    )
    lines += ["", "remedies, tried on this batch (after: after one plain step at the recorded rates)"]
    lines += _table(found.remedies)
    lines += [f"note: {remark}" for remark in found.remarks]
    return "\n".join(lines)


def _layer(layer: Layer) -> dict[str, Any]:
    span = f"{layer.last} to {layer.first}" if layer.growth > 1 else "nowhere"
    steps = abs(layer.last - layer.first)
    return {
        "layer": layer.weight,
        "lane": str(layer.lane),
        "steps": span,
        "growth": layer.growth,
        "a step": layer.growth ** (1 / steps) if steps else 1.0,
        "exp(Lyapunov)": exp(min(layer.exponents[0], 700.0)),
        "radius at 0": layer.radius,
        **{f"sigma_1 {path}": value for path, value in layer.sigma.items()},
    }


def _table(rows: list[dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([_shown(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return [
        "  " + "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    ]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _draw(found: Autopsy, path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise InputError(
            "a figure needs matplotlib: pip install matplotlib, or read the numbers (print)"
        ) from None
    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for layer in found.layers:
        steps = range(len(layer.gradient))
        above.semilogy(steps, layer.gradient, label=f"{layer.weight}, lane {layer.lane}")
        below.semilogy(steps, layer.factors)
    worst = found.worst
    if worst.growth > 1:
        for axes in (above, below):
            axes.axvspan(*sorted((worst.first, worst.last)), color="0.9")
    below.axhline(1, color="black", linewidth=0.8)
    above.set(ylabel="|dL/dh|", title=f"{found.cause.kind}: {found.cause.where}".rstrip(": "))
    below.set(ylabel="growth in the step back", xlabel="time step")
    above.legend(fontsize=8, frameon=False)
    try:
        with atomic_path(path) as temporary:
            figure.savefig(temporary)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
