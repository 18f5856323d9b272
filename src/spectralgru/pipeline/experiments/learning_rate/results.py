"""Heat maps, tables and sentences from learning-rate sweeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from spectralgru.files import write_text
from spectralgru.pipeline.experiments.base import Answer
from spectralgru.pipeline.experiments.learning_rate.heat_map import write_heat_map
from spectralgru.pipeline.experiments.learning_rate.rate_ranges import mark_working, ranges, tabulate
from spectralgru.pipeline.results.names import counted, title
from spectralgru.pipeline.results.render import Cell, Rendered, Row, column_groups, write_table
from spectralgru.pipeline.results.tables import METRICS, describe
from spectralgru.records import Run
from spectralgru.setting import Setting

Range = dict[Any, Any]  # a row of `ranges`
TITLE = "Does a lower learning rate repair clipping?"


@dataclass(frozen=True)
class Sweep:
    """The runs of one corpus."""

    corpus: str
    settings: Sequence[Setting]
    runs: dict[float, list[Run]]  # of each rate
    tolerance: float

    @property
    def metric(self) -> str:
        """The metric as shown: perplexity or NLL."""
        return METRICS[next(iter(self.runs.values()))[0].metric]

    def rows(self) -> pd.DataFrame:
        """See `mark_working`."""
        return mark_working(tabulate(self.runs, self.settings), self.tolerance)

    def about(self) -> str:
        """What was trained, in words for captions."""
        runs = [run for of_rate in self.runs.values() for run in of_rate]
        seeds = counted(len({run.seed for run in runs}), "seed")
        return f"{self.corpus}, {runs[0].scale} scale: {describe(runs[0])}, {seeds}"


def sum_up(sweeps: Sequence[Sweep], out: Path) -> Answer:
    """Write `heat_map_<corpus>`, `best_rates_<corpus>` and `rates_<corpus>.csv` below `out`."""
    tables, figures = [], []
    for sweep in sweeps:
        rows, labels = sweep.rows(), [title(setting) for setting in sweep.settings]
        name = sweep.about().split(":")[0]  # the rest is in the table's caption
        write_heat_map(rows, labels, sweep.metric, name, out / f"heat_map_{sweep.corpus}")
        figures.append(f"heat_map_{sweep.corpus}.svg")
        table = ranges(rows)
        rendered = Rendered(_caption(sweep), column_groups(sweep.settings), _lines(table, sweep.metric))
        tables.append(write_table(out / f"best_rates_{sweep.corpus}", table, rendered))
        csv = rows.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_text(out / f"rates_{sweep.corpus}.csv", csv)
    return Answer(TITLE, sentences(sweeps), tables, figures)


def sentences(sweeps: Sequence[Sweep]) -> list[str]:
    """Three sentences: whether a lower rate repairs clipping, how wide the ranges are, where each method ends."""
    repaired, widths, highest = [], [], []
    for sweep in sweeps:
        rows = sweep.rows()
        by_setting = {row["setting"]: row for row in ranges(rows).to_dict("records")}
        names = {setting.name: title(setting) for setting in sweep.settings}
        repaired.append(f"on {sweep.corpus}: {_repair(sweep, rows, by_setting, names)}")
        spans = [f"{_width(by_setting[setting])} ({name})" for setting, name in names.items()]
        widths.append(f"{', '.join(spans)} on {sweep.corpus}")
        ends = [f"{_number(by_setting[s]['highest_finishing'])} ({name})" for s, name in names.items()]
        highest.append(f"{', '.join(ends)} on {sweep.corpus}")
    within = " and ".join(f"{100 * t:g} %" for t in dict.fromkeys(sweep.tolerance for sweep in sweeps))
    return [
        f"Does a lower rate repair clipping: {'; '.join(repaired)}.",
        f"Rates at which every run finishes within {within} of the best validation result span, in factors of "
        f"two, {'; '.join(widths)}.",
        f"The highest rate at which every run finishes is {'; '.join(highest)}.",
    ]


def _repair(sweep: Sweep, rows: pd.DataFrame, by_setting: dict[str, Range], names: dict[str, str]) -> str:
    """Compare clipping at the largest threshold with the constraint that is best on validation."""
    clipped = [setting for setting in sweep.settings if setting.method == "clipping"]
    constrained = [setting.name for setting in sweep.settings if setting.method == "constraint"]
    if not clipped:
        return "clipping was not run"
    setting = max(clipped, key=lambda s: s.value or 0.0).name
    of_setting = rows[rows["setting"] == setting]
    at, name = by_setting[setting], names[setting]
    lost = of_setting.loc[of_setting["finished"] < of_setting["runs"], "rate"]
    if pd.isna(at["best_rate"]):
        return f"no, at no rate does every run of {name} finish"
    lost_above = lost[lost > at["best_rate"]]
    result = f"at {at['best_rate']:g} all finish, test {sweep.metric} {at['test']:.4g}"
    rivals = [by_setting[rival] for rival in constrained if not pd.isna(by_setting[rival]["valid"])]
    if rivals:
        rival = min(rivals, key=lambda row: float(row["valid"]))
        result += (
            f" against {rival['test']:.4g} of the best constraint, {names[rival['setting']]} at "
            f"{rival['best_rate']:g}"
        )
    if lost_above.empty:
        return f"{name} loses no run at a high rate, so there is nothing to repair; {result}"
    works = "yes" if pd.notna(at["lowest"]) else "in part"
    return f"{works}, {name} loses runs from {lost_above.min():g} up, but {result}"


def _caption(sweep: Sweep) -> str:
    return (
        f"Learning rates. {sweep.about()}, learning rates {min(sweep.runs):g} to {max(sweep.runs):g}. Best rate: of "
        f"the lowest validation {sweep.metric} among rates at which every run finishes. A rate works if every run "
        f"finishes and validation {sweep.metric} is at most {100 * sweep.tolerance:g} % above the best of all methods "
        "and rates; width: log2 of highest / lowest working rate around the best; ≥: the sweep ends before the range."
    )


def _lines(table: pd.DataFrame, metric: str) -> tuple[Row, ...]:
    rows = table.to_dict("records")
    digits = 2 if metric == "NLL" else 1

    def line(label: str, texts: list[str], best: list[bool] | None = None) -> Row:
        marks = best or [False] * len(texts)
        return Row(label, "ours", "", tuple(Cell(t, bool(b)) for t, b in zip(texts, marks, strict=True)))

    def means(split: str) -> Row:
        values = table[split]
        texts = ["n/a" if pd.isna(v) else f"{v:.{digits}f}" for v in values]
        word = "validation" if split == "valid" else split
        return line(f"{word} {metric} at the best rate", texts, list(values == values.min()))

    width = table["factors_of_two"].astype(float)
    return (
        line("best rate", [_number(r["best_rate"]) for r in rows]),
        means("valid"),
        means("test"),
        line("rates that work", [_span(r) for r in rows]),
        line("width in factors of two", [_width(r) for r in rows], list(width == width.max())),
        line("highest rate at which all finish", [_number(r["highest_finishing"]) for r in rows]),
    )


def _number(value: float | None) -> str:
    return "none" if value is None or pd.isna(value) else f"{value:g}"


def _span(row: Range) -> str:
    return "none" if pd.isna(row["lowest"]) else f"{row['lowest']:g} to {row['highest']:g}"


def _width(row: Range) -> str:
    if pd.isna(row["lowest"]):
        return "none"
    return ("≥ " if row["open_below"] or row["open_above"] else "") + f"{row['factors_of_two']:g}"
