"""Validation by epoch."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spectralgru.pipeline.results.figures.axes import finite, legend_below, log_scale
from spectralgru.pipeline.results.load import Runs
from spectralgru.pipeline.results.names import title
from spectralgru.pipeline.results.style import WIDTH, looks, new_figure

METRIC = {"perplexity": "validation perplexity", "nll": "validation NLL (nats per time step)"}
# Curves are cut, since an exploding run would flatten all others: at a multiple of the baseline's loss (more for
# perplexities, whose axis is logarithmic), and at a multiple of the worst value of a run that finished.
CUT, BEYOND = {"perplexity": 2.0, "nll": 1.25}, 1.5


def learning_curves(runs: Runs, baseline: float | None = None) -> Figure:
    """Validation metric by epoch: mean and range over the seeds that reached the epoch.

    `baseline`: the loss of predicting from the corpus' frequencies alone, drawn as a line; curves are cut above it.
    """
    look = looks(list(runs))
    figure = new_figure(WIDTH, 3.6)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    metric = next(iter(runs.values()))[0].run.metric
    lowest = np.inf
    for setting, items in runs.items():
        ax = axes[0] if setting.method == "constraint" else axes[1]
        curves = pd.concat([finite(i.history, "valid_metric", positive=True) for i in items])
        band = curves.groupby("epoch")["valid_metric"].agg(["mean", "min", "max"])
        lowest = min([lowest, *band["min"]])
        diverged = sum(i.run.status == "diverged" for i in items)
        label = title(setting) + (f" ({diverged} of {len(items)} diverged)" if diverged else "")
        marker, every = look[setting].marker, max(1, len(band) // 12)
        ax.plot(band.index, band["mean"], **look[setting].line, marker=marker, markevery=every, label=label)
        ax.fill_between(
            band.index, band["min"], band["max"], color=look[setting].color, alpha=0.18, linewidth=0
        )
    if metric == "perplexity" or baseline is None:
        log_scale(axes)
    finished = (i for items in runs.values() for i in items if i.run.status == "finished")
    limit = BEYOND * max((i.history["valid_metric"].max() for i in finished), default=np.inf)
    if baseline is not None:
        level, cut = (np.exp(x) if metric == "perplexity" else x for x in (baseline, CUT[metric] * baseline))
        limit = min(limit, cut)
        for ax in axes:
            ax.axhline(level, color="black", linewidth=0.9, linestyle=(0, (4, 2)), label="frequencies alone")
    if axes[0].get_ylim()[1] > limit:
        axes[0].set_ylim(0.95 * min(lowest, limit), limit)
    for ax, name in zip(axes, ("constraint", "clipping and unconstrained"), strict=True):
        ax.set_title(name)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.tick_params(axis="y", which="minor", labelsize=7)
        if ax.get_legend_handles_labels()[1]:
            legend_below(ax)
    axes[0].set_ylabel(METRIC[metric])
    return figure
