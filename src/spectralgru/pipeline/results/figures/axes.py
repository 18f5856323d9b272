"""What the figures share: labels, scales, and the selection of values that can be drawn."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter
from matplotlib.transforms import ScaledTranslation

GRADIENT = "gradient norm (nats)"
RADIUS = "spectral radius $|\\lambda_1(J)|$"
GROWTH = "growth (log, per step)"
RADIUS_LIMIT = 2.0  # exploding runs go far beyond, but what matters happens around 1


def finite(table: pd.DataFrame, column: str, positive: bool = False) -> pd.DataFrame:
    """The rows whose value in `column` is finite (and above zero)."""
    values = table[column].to_numpy(dtype=float)
    kept: pd.DataFrame = table.loc[np.isfinite(values) & (values > (0 if positive else -np.inf))]
    return kept


def log_scale(axes: Iterable[Axes]) -> None:
    """Make y axes logarithmic, with a range even if there is nothing to show."""
    for ax in axes:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(LogFormatter(labelOnlyBase=False))
        ax.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))
    if not any(np.isfinite(ax.dataLim.minposy) for ax in axes):
        for ax in axes:
            ax.set_ylim(1, 10)


def legend_below(ax: Axes) -> None:
    """Put the legend below the label of the x axis, whatever the height of the panel."""
    shift = ScaledTranslation(0, -0.45, ax.figure.dpi_scale_trans)  # inches
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=ax.transAxes + shift)


def stability_line(ax: Axes, horizontal: bool, at: float = 1.0) -> None:
    """Draw a line where the spectral radius is 1, or the growth 0."""
    draw = ax.axhline if horizontal else ax.axvline
    draw(at, color="black", linewidth=0.9, linestyle=(0, (4, 2)))
