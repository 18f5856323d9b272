"""Figures of what happened during training: spectral radius, gradient norm, learning curves, singular values."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from spectralgru.pipeline.corpora.of_run import load_corpus
from spectralgru.pipeline.results.figures.gradient_norms import gradient_norms
from spectralgru.pipeline.results.figures.learning_curves import learning_curves
from spectralgru.pipeline.results.figures.singular_values import singular_values
from spectralgru.pipeline.results.figures.trajectory import (
    contrast,
    growth_gradient,
    radius_gradient,
    trajectory,
)
from spectralgru.pipeline.results.load import Campaign, Runs
from spectralgru.pipeline.results.names import FIGURE_NAMES
from spectralgru.pipeline.results.style import RC, save
from spectralgru.setting import Setting
from spectralgru.training.data.loading import baseline_loss

DRAWN = (
    trajectory,
    radius_gradient,
    growth_gradient,
    learning_curves,
    gradient_norms,
    singular_values,
)
FIGURES: dict[str, Callable[[Runs], Figure]] = dict(zip(FIGURE_NAMES, DRAWN, strict=True))


def write_figures(campaign: Campaign, data: Path | None = None) -> list[Path]:
    """Write `figures/<corpus>-<what>.{svg,pdf}` for each corpus and each `what` of `FIGURES`; return the paths.

    With `data`, learning curves also show the loss of the prepared corpus' frequencies. Raises InputError naming the
    first trace that cannot be read, or a corpus that the runs were not trained on.
    """
    written = []
    with style.context(["default", RC]):  # not the matplotlibrc of this machine
        for corpus, runs in campaign.corpora.items():
            baseline = _baseline(runs, data) if data else None
            of_corpus = FIGURES | {"learning_curves": partial(learning_curves, baseline=baseline)}
            for what, draw in of_corpus.items():
                figure = draw(runs)
                figure.suptitle(f"{corpus}, {campaign.scale} scale", fontsize=9, color="0.35")
                written += save(figure, campaign.root / "figures" / f"{corpus}-{what}")
    return written


def _baseline(runs: Runs, data: Path) -> float:
    """The validation loss of the corpus' frequencies, on the part that the runs were trained on."""
    item = next(iter(runs.values()))[0]
    return baseline_loss(load_corpus(item.run, item.directory, data), "valid")


def shown(name: str, settings: Sequence[Setting], seeds: Sequence[int]) -> list[tuple[Setting, int]]:
    """Setting and seed of every run that the figure `name` (of `FIGURE_NAMES`) shows, in order."""
    chosen = contrast(settings) if name in ("trajectory", "radius_gradient", "growth_gradient") else settings
    some = seeds[:1] if name in ("trajectory", "singular_values") else seeds
    return [(setting, seed) for setting in chosen for seed in some]
