"""Success and metric by method and learning rate, as a heat map."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spectralgru.pipeline.experiments.learning_rate.rate_ranges import ranges
from spectralgru.pipeline.results.style import RC, WIDTH, new_figure, save

WORST = 1.5  # times the best metric, where the colours end


def write_heat_map(
    sweep: pd.DataFrame, labels: Sequence[str], metric: str, title: str, stem: Path
) -> list[Path]:
    """Write `stem` .svg and .pdf from what `mark_working` returns; `labels` of the settings, in its order."""
    with style.context(["default", RC]):
        figure = new_figure(WIDTH, 0.62 * len(labels) + 1.9)
        figure.suptitle(title, fontsize=9, color="0.35")
        top, bottom = figure.subplots(2, 1, sharex=True)
        share = _grid(sweep, sweep["finished"] / sweep["runs"])
        _panel(figure, top, share, _grid(sweep, _success(sweep)), "Blues", Normalize(0, 1))
        top.set_title(
            "share of runs that finish (∞: runs overflowed; otherwise lost: no better than frequencies)"
        )
        values = _grid(sweep, sweep["test"])
        best = np.nanmin(values) if np.isfinite(values).any() else 1.0
        texts = _grid(sweep, sweep["test"].map(lambda v: "" if pd.isna(v) else f"{v:.3g}"))
        _panel(figure, bottom, values, texts, "viridis_r", LogNorm(best, WORST * best))
        bottom.set_title(
            f"test {metric}, mean over the runs that finish; framed: works; star: best on validation"
        )
        _mark(bottom, sweep)
        rates = sorted(sweep["rate"].unique())
        bottom.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        bottom.set_xlabel("initial learning rate")
        for ax in (top, bottom):
            ax.set_yticks(range(len(labels)), labels)
        return save(figure, stem)


def _grid(sweep: pd.DataFrame, values: pd.Series) -> np.ndarray:
    """[settings, rates], in the order of the settings and of ascending rates."""
    table = sweep.assign(value=values).pivot(index="setting", columns="rate", values="value")
    return table.loc[list(dict.fromkeys(sweep["setting"]))].sort_index(axis=1).to_numpy()


def _success(sweep: pd.DataFrame) -> pd.Series:
    texts = [f"{row.finished}/{row.runs}" + (" ∞" if row.overflowed else "") for row in sweep.itertuples()]
    return pd.Series(texts, index=sweep.index)


def _panel(
    figure: Figure, ax: Axes, values: np.ndarray, texts: np.ndarray, colors: str, norm: Normalize
) -> None:
    image = ax.imshow(np.asarray(values, float), aspect="auto", cmap=colors, norm=norm)
    ax.set_facecolor("0.93")
    ax.grid(visible=False)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    for (y, x), text in np.ndenumerate(texts):
        red, green, blue, _ = (
            image.cmap(image.norm(values[y, x])) if np.isfinite(values[y, x]) else (1, 1, 1, 1)
        )
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        ax.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")


def _mark(ax: Axes, sweep: pd.DataFrame) -> None:
    works, rates = _grid(sweep, sweep["works"]), sorted(sweep["rate"].unique())
    for (y, x), good in np.ndenumerate(works):
        if good:
            ax.add_patch(
                Rectangle((x - 0.47, y - 0.44), 0.94, 0.88, fill=False, edgecolor="black", linewidth=1.2)
            )
    for y, best in enumerate(ranges(sweep)["best_rate"]):
        if pd.notna(best):
            ax.plot(rates.index(best) + 0.36, y - 0.26, "*", color="black", markeredgecolor="white",
                    markeredgewidth=0.4, markersize=7)  # fmt: skip
