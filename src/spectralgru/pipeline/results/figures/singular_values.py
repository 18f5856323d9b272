"""The spectrum of W_hh before and after training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spectralgru.pipeline.results.figures.axes import legend_below
from spectralgru.pipeline.results.load import Runs
from spectralgru.pipeline.results.names import METHOD_TITLES, title
from spectralgru.pipeline.results.style import WIDTH, looks, new_figure

SIGMA_LIMIT = 5.0


def singular_values(runs: Runs) -> Figure:
    """Spectrum of W_hh by layer and method, before (thin) and after training (thick), with the bounds 2 - delta."""
    look = looks(list(runs))
    methods = [method for method in METHOD_TITLES if any(setting.method == method for setting in runs)]
    layers = max(
        (len(s) for items in runs.values() for i in items for s in i.run.spectrum.values()), default=1
    )
    figure = new_figure(WIDTH, 2.3 * layers + 0.8)
    axes = figure.subplots(layers, len(methods), sharex=True, sharey=True, squeeze=False)
    for setting, items in runs.items():
        spectrum, line = items[0].run.spectrum, look[setting].line
        for layer in range(layers):
            ax = axes[layer, methods.index(setting.method)]
            before, after = (_layer(spectrum, moment, layer) for moment in ("initial", "final"))
            ax.plot(np.arange(1, len(before) + 1), before, color=line["color"], linewidth=0.7, linestyle=":")
            every = max(1, len(after) // 8)
            marker = look[setting].marker
            ax.plot(
                np.arange(1, len(after) + 1),
                after,
                **line,
                marker=marker,
                markevery=every,
                label=title(setting),
            )
            if setting.method == "constraint" and setting.value is not None:
                ax.axhline(2 - setting.value, color=line["color"], linewidth=0.7, linestyle="-")
    largest = max(ax.dataLim.ymax for ax in axes.flat)
    axes[0, 0].set_ylim(0, min(SIGMA_LIMIT, 1.08 * largest) if np.isfinite(largest) else 1)
    for column, method in enumerate(methods):
        for layer, ax in enumerate(axes[:, column]):
            ax.set_title(METHOD_TITLES[method] + (f", layer {layer + 1}" if layers > 1 else ""))
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if ax.dataLim.ymax > SIGMA_LIMIT:
                text = f"largest {ax.dataLim.ymax:.3g}"
                place = {"ha": "right", "va": "top", "transform": ax.transAxes}
                ax.text(0.98, 0.97, text, fontsize=8, backgroundcolor="white", **place)
        last = axes[-1, column]
        last.plot([], [], color="0.4", linewidth=0.7, linestyle=":", label="before training")
        if method == "constraint":
            last.plot([], [], color="0.4", linewidth=0.7, linestyle="-", label="bound $2 - \\delta$")
        last.set_xlabel("index of singular value")
        legend_below(last)
    for ax in axes[:, 0]:
        ax.set_ylabel("singular value of $W_{hh}$")
    return figure


def _layer(spectrum: Mapping[str, list[list[float]]], moment: str, layer: int) -> np.ndarray[Any, Any]:
    found = spectrum.get(moment, [])
    return np.sort(np.asarray(found[layer] if layer < len(found) else [], dtype=float))[::-1]
