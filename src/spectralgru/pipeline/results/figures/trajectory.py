"""Gradient norm and what may explain it, spectral radius or growth: during training, and against each other."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spectralgru.pipeline.results.figures.axes import (
    GRADIENT,
    GROWTH,
    RADIUS,
    RADIUS_LIMIT,
    finite,
    log_scale,
    stability_line,
)
from spectralgru.pipeline.results.load import RunFiles, Runs
from spectralgru.pipeline.results.names import title
from spectralgru.pipeline.results.style import WIDTH, method_color, new_figure
from spectralgru.setting import Setting

SCATTER_POINTS = 2000  # per panel; more would only make the file large


def contrast(settings: Iterable[Setting]) -> list[Setting]:
    """One setting of each method: the tightest constraint, the loosest clipping, none."""
    settings = list(settings)
    constrained = [s for s in settings if s.method == "constraint"]
    clipped = [s for s in settings if s.method == "clipping"]
    chosen = [min(constrained, key=_value)] if constrained else []
    chosen += [max(clipped, key=_value)] if clipped else []
    return chosen + [s for s in settings if s.method == "none"]


def trajectory(runs: Runs) -> Figure:
    """Gradient norm above spectral radius during training: a constrained run beside runs of the other methods."""
    chosen = contrast(runs)
    figure = new_figure(WIDTH, 4)
    axes = figure.subplots(2, len(chosen), sharex="col", sharey="row", squeeze=False)
    for column, setting in enumerate(chosen):
        item = runs[setting][0]
        top, bottom = axes[0, column], axes[1, column]
        steps = item.steps
        gradient = finite(steps, "grad_norm", positive=True)
        radius = finite(steps, "spectral_radius")
        color = method_color(setting.method)
        top.plot(gradient["step"], gradient["grad_norm"], color=color, linewidth=0.9)
        bottom.plot(radius["step"], radius["spectral_radius"], color=color, linewidth=1.1)
        stability_line(bottom, horizontal=True)
        _mark_divergence(top, bottom, item)
        top.set_title(f"{title(setting)} (seed {item.run.seed})")
        bottom.set_xlabel("training step")
        bottom.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    log_scale(axes[0])
    low, high = min(ax.dataLim.ymin for ax in axes[1]), max(ax.dataLim.ymax for ax in axes[1])
    if high > RADIUS_LIMIT:
        axes[1, 0].set_ylim(min(low, 1.0) - 0.05, RADIUS_LIMIT)
    axes[0, 0].set_ylabel(GRADIENT)
    axes[1, 0].set_ylabel(RADIUS)
    return figure


def radius_gradient(runs: Runs) -> Figure:
    """Gradient norm against spectral radius in every recorded interval of all seeds."""
    return _scatter(runs, "spectral_radius", RADIUS, 1.0, RADIUS_LIMIT)


def growth_gradient(runs: Runs) -> Figure:
    """Gradient norm against growth along the data in every recorded interval of all seeds."""
    return _scatter(runs, "growth", GROWTH, 0.0)


def _scatter(runs: Runs, column: str, label: str, border: float, limit: float = np.inf) -> Figure:
    """Gradient norm against a column, with a dashed line at `border`; values above `limit` are drawn at it."""
    chosen = contrast(runs)
    figure = new_figure(WIDTH, 2.8)
    axes = figure.subplots(1, len(chosen), sharex=True, sharey=True, squeeze=False)[0]
    for ax, setting in zip(axes, chosen, strict=True):
        points = pd.concat([item.steps for item in runs[setting]]).reindex(columns=[column, "grad_norm"])
        points = finite(points, column).pipe(finite, "grad_norm", positive=True)
        points = points.iloc[:: max(1, len(points) // SCATTER_POINTS)]
        ax.plot(
            points[column].clip(upper=limit),
            points["grad_norm"],
            "o",
            markerfacecolor="none",
            markeredgecolor=method_color(setting.method),
            markeredgewidth=0.5,
            markersize=3,
        )
        stability_line(ax, horizontal=False, at=border)
        ax.set_title(title(setting))
        ax.set_xlabel(label)
    log_scale(axes)
    if axes[0].get_xlim()[1] > limit:
        axes[-1].annotate(
            "beyond", (limit, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=7
        )
    axes[0].set_ylabel(GRADIENT)
    return figure


def _value(setting: Setting) -> float:
    return setting.value or 0.0


def _mark_divergence(top: Axes, bottom: Axes, item: RunFiles) -> None:
    step = (item.run.diverged or {}).get("step")
    if step is None:
        return
    for ax in (top, bottom):
        ax.axvline(step, color="0.4", linewidth=0.8, linestyle=":")
    place: dict[str, Any] = {
        "xycoords": ("data", "axes fraction"),
        "xytext": (-3, 0),
        "textcoords": "offset points",
    }
    legible = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
    top.annotate(
        "diverged", (step, 0.97), **place, ha="right", va="top", rotation=90, fontsize=7, bbox=legible
    )
