"""What happened along training: spectral radius and gradient norm, learning curves, singular values."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from spectralgru.pipeline.results.load import Campaign, RunFiles, Runs
from spectralgru.pipeline.results.names import FIGURE_NAMES
from spectralgru.pipeline.results.style import RC, WIDTH, looks, method_color, new_figure, save, title
from spectralgru.records import Setting

METRIC = {"perplexity": "validation perplexity", "nll": "validation NLL (nats per time step)"}
GRADIENT = "gradient norm (nats)"
RADIUS = "spectral radius $|\\lambda_1(J)|$"
SCATTER_POINTS = 2000  # a panel; more only makes the file heavy
RADIUS_LIMIT = 2.0  # an exploding run goes far beyond; what matters happens around 1
SIGMA_LIMIT = 5.0
BEYOND = 1.5  # learning curves are cut at this multiple of the worst value of a run that finished
PANELS = {"constraint": "constraint", "clipping": "gradient clipping", "none": "unconstrained"}


def write_figures(campaign: Campaign) -> list[Path]:
    """Write `figures/<corpus>-<what>.{svg,pdf}` for each corpus and each `what` of `FIGURES`; return the paths.

    Raises InputError naming the first trace that cannot be read.
    """
    written = []
    with style.context(["default", RC]):  # whatever the matplotlibrc of this machine says
        for corpus, runs in campaign.corpora.items():
            for what, draw in FIGURES.items():
                figure = draw(runs)
                figure.suptitle(f"{corpus}, {campaign.scale} scale", fontsize=9, color="0.35")
                written += save(figure, campaign.root / "figures" / f"{corpus}-{what}")
    return written


def contrast(settings: Iterable[Setting]) -> list[Setting]:
    """One setting of each method: the tightest constraint, the loosest clipping, none."""
    settings = list(settings)
    constrained = [s for s in settings if s[0] == "constraint"]
    clipped = [s for s in settings if s[0] == "clipping"]
    chosen = [min(constrained, key=_value)] if constrained else []
    chosen += [max(clipped, key=_value)] if clipped else []
    return chosen + [s for s in settings if s[0] == "none"]


def trajectory(runs: Runs) -> Figure:
    """Gradient norm above spectral radius along training: a constrained run beside ones that are not."""
    chosen = contrast(runs)
    figure = new_figure(WIDTH, 4)
    axes = figure.subplots(2, len(chosen), sharex="col", sharey="row", squeeze=False)
    for column, setting in enumerate(chosen):
        item = runs[setting][0]
        top, bottom = axes[0, column], axes[1, column]
        steps = item.steps
        gradient = _finite(steps, "grad_norm", positive=True)
        radius = _finite(steps, "spectral_radius")
        color = method_color(setting[0])
        top.plot(gradient["step"], gradient["grad_norm"], color=color, linewidth=0.9)
        bottom.plot(radius["step"], radius["spectral_radius"], color=color, linewidth=1.1)
        _stability_line(bottom, horizontal=True)
        _mark_divergence(top, bottom, item)
        top.set_title(f"{title(setting)} (seed {item.run.seed})")
        bottom.set_xlabel("training step")
        bottom.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    _log_scale(axes[0])
    low, high = min(ax.dataLim.ymin for ax in axes[1]), max(ax.dataLim.ymax for ax in axes[1])
    if high > RADIUS_LIMIT:
        axes[1, 0].set_ylim(min(low, 1.0) - 0.05, RADIUS_LIMIT)
    axes[0, 0].set_ylabel(GRADIENT)
    axes[1, 0].set_ylabel(RADIUS)
    return figure


def radius_gradient(runs: Runs) -> Figure:
    """Gradient norm against spectral radius, every recorded interval of all seeds."""
    chosen = contrast(runs)
    figure = new_figure(WIDTH, 2.8)
    axes = figure.subplots(1, len(chosen), sharex=True, sharey=True, squeeze=False)[0]
    for ax, setting in zip(axes, chosen, strict=True):
        points = pd.concat([item.steps for item in runs[setting]])
        points = _finite(points, "spectral_radius").pipe(_finite, "grad_norm", positive=True)
        points = points.iloc[:: max(1, len(points) // SCATTER_POINTS)]
        ax.plot(
            points["spectral_radius"].clip(upper=RADIUS_LIMIT),
            points["grad_norm"],
            "o",
            markerfacecolor="none",
            markeredgecolor=method_color(setting[0]),
            markeredgewidth=0.5,
            markersize=3,
        )
        _stability_line(ax, horizontal=False)
        ax.set_title(title(setting))
        ax.set_xlabel(RADIUS)
    _log_scale(axes)
    if axes[0].get_xlim()[1] > RADIUS_LIMIT:
        axes[-1].annotate(
            "beyond", (RADIUS_LIMIT, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=7
        )
    axes[0].set_ylabel(GRADIENT)
    return figure


def learning_curves(runs: Runs) -> Figure:
    """Validation metric by epoch: mean and range over the seeds that reached the epoch."""
    look = looks(list(runs))
    figure = new_figure(WIDTH, 3.6)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    metric = METRIC[next(iter(runs.values()))[0].run.metric]
    lowest = np.inf
    for setting, items in runs.items():
        ax = axes[0] if setting[0] == "constraint" else axes[1]
        curves = pd.concat([_finite(i.history, "valid_metric", positive=True) for i in items])
        band = curves.groupby("epoch")["valid_metric"].agg(["mean", "min", "max"])
        lowest = min([lowest, *band["min"]])
        diverged = sum(i.run.status == "diverged" for i in items)
        label = title(setting) + (f" ({diverged} of {len(items)} diverged)" if diverged else "")
        marker, every = look[setting].marker, max(1, len(band) // 12)
        ax.plot(band.index, band["mean"], **look[setting].line, marker=marker, markevery=every, label=label)
        ax.fill_between(
            band.index, band["min"], band["max"], color=look[setting].color, alpha=0.18, linewidth=0
        )
    _log_scale(axes)
    finished = (i for items in runs.values() for i in items if i.run.status == "finished")
    worst = max((i.history["valid_metric"].max() for i in finished), default=np.inf)
    if axes[0].get_ylim()[1] > BEYOND * worst:  # a run that explodes would flatten all others
        axes[0].set_ylim(0.9 * lowest, BEYOND * worst)
    for ax, name in zip(axes, ("constraint", "clipping and unconstrained"), strict=True):
        ax.set_title(name)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.tick_params(axis="y", which="minor", labelsize=7)
        if ax.get_legend_handles_labels()[1]:
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18))
    axes[0].set_ylabel(metric)
    return figure


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
        if setting[0] == "clipping":
            ax.hlines(setting[1] or 0, x - 0.4, x + 0.4, color="black", linestyle=(0, (2, 1)), linewidth=1)
        if len(norms) > np.isfinite(norms).sum():
            ax.text(x, 1, "∞", transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize=11)
    _log_scale([ax])
    ax.set_xticks(range(len(runs)), [title(setting) for setting in runs], rotation=30, ha="right")
    ax.set_ylabel(GRADIENT)
    ax.grid(axis="x", visible=False)
    ax.set_title(
        "box: quartiles, whiskers: 1 % and 99 %, triangle: largest, dashes: clipping threshold, ∞: overflow",
        fontsize=8,
        pad=16,
    )
    return figure


def singular_values(runs: Runs) -> Figure:
    """Spectrum of W_hh by layer and method before (thin) and after training (thick), with the bounds 2 - delta."""
    look = looks(list(runs))
    methods = [method for method in PANELS if any(setting[0] == method for setting in runs)]
    layers = max(
        (len(s) for items in runs.values() for i in items for s in i.run.spectrum.values()), default=1
    )
    figure = new_figure(WIDTH, 2.3 * layers + 0.8)
    axes = figure.subplots(layers, len(methods), sharex=True, sharey=True, squeeze=False)
    for setting, items in runs.items():
        spectrum, line = items[0].run.spectrum, look[setting].line
        for layer in range(layers):
            ax = axes[layer, methods.index(setting[0])]
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
            if setting[0] == "constraint" and setting[1] is not None:
                ax.axhline(2 - setting[1], color=line["color"], linewidth=0.7, linestyle="-")
    largest = max(ax.dataLim.ymax for ax in axes.flat)
    axes[0, 0].set_ylim(0, min(SIGMA_LIMIT, 1.08 * largest) if np.isfinite(largest) else 1)
    for column, method in enumerate(methods):
        for layer, ax in enumerate(axes[:, column]):
            ax.set_title(PANELS[method] + (f", layer {layer + 1}" if layers > 1 else ""))
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
        last.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))
    for ax in axes[:, 0]:
        ax.set_ylabel("singular value of $W_{hh}$")
    return figure


DRAWN = (trajectory, radius_gradient, learning_curves, gradient_norms, singular_values)
FIGURES: dict[str, Callable[[Runs], Figure]] = dict(zip(FIGURE_NAMES, DRAWN, strict=True))


def shown(name: str, settings: Sequence[Setting], seeds: Sequence[int]) -> list[tuple[Setting, int]]:
    """Setting and seed of every run that the figure `name` (of `FIGURE_NAMES`) shows, in order."""
    chosen = contrast(settings) if name in ("trajectory", "radius_gradient") else settings
    some = seeds[:1] if name in ("trajectory", "singular_values") else seeds
    return [(setting, seed) for setting in chosen for seed in some]


def _value(setting: Setting) -> float:
    return setting[1] or 0.0


def _finite(table: pd.DataFrame, column: str, positive: bool = False) -> pd.DataFrame:
    values = table[column].to_numpy(dtype=float)
    kept: pd.DataFrame = table.loc[np.isfinite(values) & (values > (0 if positive else -np.inf))]
    return kept


def _layer(spectrum: Mapping[str, list[list[float]]], moment: str, layer: int) -> np.ndarray[Any, Any]:
    found = spectrum.get(moment, [])
    return np.sort(np.asarray(found[layer] if layer < len(found) else [], dtype=float))[::-1]


def _log_scale(axes: Iterable[Axes]) -> None:
    """Logarithmic y axes that share their range, also when no run left a number to show."""
    for ax in axes:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(LogFormatter(labelOnlyBase=False))
        ax.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))
    if not any(np.isfinite(ax.dataLim.minposy) for ax in axes):
        for ax in axes:
            ax.set_ylim(1, 10)


def _stability_line(ax: Axes, horizontal: bool) -> None:
    draw = ax.axhline if horizontal else ax.axvline
    draw(1.0, color="black", linewidth=0.9, linestyle=(0, (4, 2)))


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
    top.annotate("diverged", (step, 0.97), **place, ha="right", va="top", rotation=90, fontsize=7)
