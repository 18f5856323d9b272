"""The distribution of the gradient norm."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spectralgru.pipeline.results.figures.axes import GRADIENT, log_scale
from spectralgru.pipeline.results.load import Runs
from spectralgru.pipeline.results.names import title
from spectralgru.pipeline.results.style import WIDTH, looks, new_figure


def gradient_norms(runs: Runs) -> Figure:
    """Distribution of the gradient norm by setting, all seeds and intervals, with its largest value."""
    look = looks(list(runs))
    figure = new_figure(WIDTH, 3.2)
    ax = figure.subplots()
    for x, (setting, items) in enumerate(runs.items()):
        norms = pd.concat([i.steps for i in items])["grad_norm"]
        finite = norms[np.isfinite(norms) & (norms > 0)].to_numpy()
        if len(finite):
            low, q1, median, q3, high = np.percentile(finite, [1, 25, 50, 75, 99])
            box = {"whislo": low, "q1": q1, "med": median, "q3": q3, "whishi": high, "fliers": []}
            filled = {"facecolor": look[setting].color, "alpha": 0.75}
            drawn = ax.bxp(
                [box], positions=[x], widths=0.55, showfliers=False, patch_artist=True, boxprops=filled
            )
            drawn["medians"][0].set(color="black", linewidth=1.5)
            ax.plot(x, finite.max(), "^", color="black", markersize=4)
        if setting.method == "clipping":
            ax.hlines(setting.value or 0, x - 0.4, x + 0.4, color="black", linestyle=(0, (2, 1)), linewidth=1)
        if len(norms) > np.isfinite(norms).sum():
            ax.text(x, 1, "∞", transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize=11)
    log_scale([ax])
    ax.set_xticks(range(len(runs)), [title(setting) for setting in runs], rotation=30, ha="right")
    ax.set_ylabel(GRADIENT)
    ax.grid(axis="x", visible=False)
    ax.set_title(
        "box: quartiles, whiskers: 1 % and 99 %, triangle: largest, dashes: clipping threshold, ∞: overflow",
        fontsize=8,
        pad=16,
    )
    return figure
