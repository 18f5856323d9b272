"""Piano rolls drawn one above another."""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from spectralgru.pipeline.results.style import WIDTH, method_color, new_figure
from spectralgru.pipeline.sampling.music import Timing, sounding
from spectralgru.pipeline.sampling.sample import Tune

GIVEN = "0.55"  # colour of the given beginning
BAR = 16  # steps between grid lines: two bars of eighths, or four of quarters


def draw(tunes: Mapping[str, Tune], methods: Mapping[str, str]) -> Figure:
    """A panel for each tune, with its key as title; a dashed line shows where the continuation begins.

    `methods`: by title, the method in whose colour the continuation is drawn; the original's is black.
    """
    figure = new_figure(WIDTH, 1.8 * len(tunes) + 0.6)
    axes = figure.subplots(len(tunes), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for ax, (title, tune) in zip(axes, tunes.items(), strict=True):
        color = method_color(methods[title]) if title in methods else "black"
        for part, first, shade in (
            (tune.roll[: tune.begins], 0, GIVEN),
            (tune.roll[tune.begins :], tune.begins, color),
        ):
            notes = np.array(sounding(part, tune.lowest, 1)).reshape(-1, 3)
            # A gap shows where one note ends and the next of its pitch begins.
            ax.barh(notes[:, 0], notes[:, 2] - notes[:, 1] - 0.12, 1.0, first + notes[:, 1], color=shade)
        ax.set_axisbelow(True)
        ax.axvline(tune.begins, color="black", linewidth=0.9, linestyle=(0, (4, 2)))
        ax.set_title(title, loc="left")
        ax.set_ylabel("pitch")
        ax.yaxis.set_major_locator(MultipleLocator(12))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda pitch, _: f"C{int(pitch) // 12 - 1}"))
        ax.xaxis.set_major_locator(MultipleLocator(BAR))
    shown = next(iter(tunes.values()))
    place = {"xycoords": ("data", "axes fraction"), "xytext": (4, 3), "textcoords": "offset points"}
    axes[0].annotate("continuation →", (shown.begins, 1), **place, fontsize=8)
    axes[-1].set_xlabel(f"time step ({_named(shown.timing)})")
    axes[-1].set_xlim(0, max(len(tune.roll) for tune in tunes.values()))
    low, high = zip(*(_range(tune) for tune in tunes.values()), strict=True)
    axes[-1].set_ylim(min(low) - 2, max(high) + 2)
    return figure


def _named(timing: Timing) -> str:
    step = Fraction(timing.step, timing.ticks_per_beat)
    names = {Fraction(1): "quarter note", Fraction(1, 2): "eighth note", Fraction(1, 4): "sixteenth note"}
    return names.get(step, f"{step} of a quarter note")


def _range(tune: Tune) -> tuple[int, int]:
    pitches = tune.lowest + np.flatnonzero(tune.roll.any(axis=0))
    return int(pitches[0]), int(pitches[-1])
