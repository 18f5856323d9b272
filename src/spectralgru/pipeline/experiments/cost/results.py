"""Table 3, a figure and sentences from timed steps."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import style

from spectralgru.pipeline.experiments.base import Answer, Part, read_record
from spectralgru.pipeline.params.experiments import CostOf
from spectralgru.pipeline.results.names import counted
from spectralgru.pipeline.results.paper import Cost, load_paper
from spectralgru.pipeline.results.render import Cell, Rendered, Row, column_groups, write_table
from spectralgru.pipeline.results.style import RC, WIDTH, new_figure, save
from spectralgru.setting import Setting

TITLE = "What does the constraint cost?"
LAPS = 5
MS = "ms per step"
ALTERNATIVES = ("none", "clipping", "naive SVD", "truncated SVD", "ours")
LOOKS = {"clipping": ("#b8860b", "^"), "naive SVD": ("0.35", "s"), "truncated SVD": ("#8c2d04", "D"),
         "ours": ("#08519c", "o")}  # fmt: skip
ORDER = (
    ("ours", "naive SVD"),
    ("ours", "truncated SVD"),
    ("truncated SVD", "naive SVD"),
    ("ours", "clipping"),
)
PAPER = {"naive SVD": "naive SVD", "truncated SVD": "truncated SVD", "clipping": "gradient clipping"}


def sum_up(parts: Sequence[Part], networks: Mapping[str, CostOf], out: Path) -> Answer:
    """Write `table3` and the figure `cost` below `out`."""
    measured = [read_record(part.record(out)) for part in parts]
    table, paper = tabulate(measured), load_paper().cost
    rendered = Rendered(_caption(measured, networks, paper), _columns(table, paper), _rows(table, paper))
    fragment = write_table(out / "table3", table, rendered)
    _draw(table, out / "cost")
    return Answer(TITLE, sentences(table, paper), [fragment], ["cost.svg"])


def tabulate(measured: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each corpus, delta and method: CPU seconds of a step, and the share of it that the method takes.

    The steps are divided into LAPS of equal length. `seconds` and `share` are medians of the laps' means, `low` and
    `high` the lowest and highest mean; `above` is the mean number of singular values above the bound.
    """
    rows = []
    for record in measured:
        laps = _laps(record["steps"])
        for method in ALTERNATIVES:
            none = [lap["none"] for lap in laps]
            extra = [0.0 if method == "none" else lap[method] for lap in laps]
            whole = [a + b for a, b in zip(none, extra, strict=True)]
            rows.append(
                {
                    "corpus": record["corpus"],
                    "delta": record["delta"],
                    "method": method,
                    "seconds": statistics.median(whole),
                    "low": min(whole),
                    "high": max(whole),
                    "share": statistics.median(e / w for e, w in zip(extra, whole, strict=True)),
                    "above": statistics.fmean(step["above"] for step in record["steps"]),
                }
            )
    return pd.DataFrame(rows)


def _laps(steps: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    count = min(LAPS, len(steps))
    cuts = [round(i * len(steps) / count) for i in range(count + 1)]
    return [
        {name: statistics.fmean(step[name] for step in steps[a:b]) for name in ALTERNATIVES}
        for a, b in pairwise(cuts)
    ]


def sentences(table: pd.DataFrame, paper: Cost) -> list[str]:
    """What the numbers say, compared with the paper's."""
    said = []
    for corpus, rows in table.groupby("corpus", sort=False):
        step = rows.loc[rows["method"] == "none", "seconds"].median()
        shares = ", ".join(f"{m} {_span(rows, m)}" for m in ALTERNATIVES[1:])
        said.append(
            f"{corpus}: a step takes {1e3 * step:.3g} ms without constraint or clipping; share of the step, smallest "
            f"to largest over delta: {shares}; on average {rows['above'].min():.3g} to "
            f"{rows['above'].max():.3g} singular values are above the bound in the timed steps."
        )
    wide = table.pivot(index=["corpus", "delta"], columns="method", values="share")
    for better, worse in ORDER:
        won = int((wide[better] < wide[worse]).sum())
        said.append(f"{better[0].upper()}{better[1:]} costs less than {worse} in {won} of {len(wide)} cases.")
    seconds = ", ".join(f"{name} {value:,.0f} s" for name, value in paper.seconds.items())
    said.append(f"The paper{paper.mark.symbol}: {seconds} ({paper.unit}; {paper.mark.meaning}).")
    return said


def _span(rows: pd.DataFrame, method: str) -> str:
    shares = 100 * rows.loc[rows["method"] == method, "share"]
    return f"{shares.min():.2g} to {shares.max():.2g} %"


def _caption(measured: Sequence[Mapping[str, Any]], networks: Mapping[str, CostOf], paper: Cost) -> str:
    about = "; ".join(
        f"{corpus}, {counted(n.model.num_layers, 'GRU layer')} of {n.model.hidden_size} units, "
        f"steps {n.warm_up + 1} to {n.warm_up + n.steps} of training"
        for corpus, n in networks.items()
    )
    machine = measured[0]["machine"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("torch", "numpy", "scipy"))
    return (
        f"Table 3. Milliseconds of CPU time of a training step, and the share of it that the method takes: {about}. "
        f"Median (lowest to highest) over {LAPS} laps. All projections are applied to the same matrices of a training "
        f"for each δ. One thread, {machine['device']}, {versions}. {paper.mark.symbol} Kanai et al., {paper.unit}: "
        f"{paper.mark.meaning}."
    )


def _columns(table: pd.DataFrame, paper: Cost) -> tuple[tuple[str, tuple[str, ...]], ...]:
    deltas = column_groups([Setting("constraint", delta) for delta in sorted(table["delta"].unique())])
    return (*deltas, (f"paper{paper.mark.symbol}, s", ("",)))


def _rows(table: pd.DataFrame, paper: Cost) -> tuple[Row, ...]:
    deltas, rows = sorted(table["delta"].unique()), []
    for corpus, of_corpus in table.groupby("corpus", sort=False):
        cells = {(r["method"], r["delta"]): r for r in of_corpus.to_dict("records")}
        for what in (MS, "share of the step"):
            for method in ALTERNATIVES if what == MS else ALTERNATIVES[1:]:
                texts = [_text(cells.get((method, delta)), what) for delta in deltas]
                theirs = what == MS and corpus == paper.corpus and PAPER.get(method)
                texts.append(f"{paper.seconds[theirs]:,.0f}" if theirs else "")
                rows.append(Row(f"{corpus}, {what}", "ours", method, tuple(map(Cell, texts))))
        above = [cells.get(("ours", delta)) for delta in deltas]
        texts = [f"{r['above']:.1f}" if r else "" for r in above]
        rows.append(Row(f"{corpus}, singular values above", "ours", "mean", tuple(map(Cell, [*texts, ""]))))
    return tuple(rows)


def _text(row: Mapping[Any, Any] | None, what: str) -> str:
    if row is None:
        return ""
    if what == MS:
        return f"{1e3 * row['seconds']:.1f} ({1e3 * row['low']:.1f} to {1e3 * row['high']:.1f})"
    return f"{100 * row['share']:.2g} %"


def _draw(table: pd.DataFrame, stem: Path) -> None:
    corpora = list(dict.fromkeys(table["corpus"]))
    with style.context(["default", RC]):
        figure = new_figure(WIDTH, 2.8)
        axes = figure.subplots(1, len(corpora), sharey=True, squeeze=False)[0]
        for ax, corpus in zip(axes, corpora, strict=True):
            of_corpus = table[table["corpus"] == corpus]
            for method, (color, marker) in LOOKS.items():
                rows = of_corpus[of_corpus["method"] == method].sort_values("delta")
                ax.plot(rows["delta"], 100 * rows["share"], color=color, marker=marker, label=method)
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter("{x:g}")
            ax.set_title(corpus)
            ax.set_xlabel("δ")
            ax.set_xticks(sorted(of_corpus["delta"].unique()))
        axes[0].set_ylabel("share of a training step (%)")
        axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
        save(figure, stem)
