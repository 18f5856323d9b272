"""Tables, figures, claims and sentences from the runs of other readings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import style

from spectralgru.pipeline.experiments.base import Answer
from spectralgru.pipeline.results.claims.check import claim_records
from spectralgru.pipeline.results.figures.trajectory import growth_gradient, trajectory
from spectralgru.pipeline.results.load import Runs
from spectralgru.pipeline.results.paper import load_paper
from spectralgru.pipeline.results.render import Fragment, write_table
from spectralgru.pipeline.results.style import RC, save
from spectralgru.pipeline.results.tables import layout, make_table

TITLE = "What do other readings of the paper's network give?"
SAID = (
    "constraint-never-diverges",
    "constraint-beats-clipping",
    "bursts-where-radius-crosses-one",
    "growth-tells-bursts-better",
)


def sum_up(of_each: Mapping[tuple[str, str], Runs], out: Path) -> Answer:
    """Write `table_<corpus>_<reading>`, `trajectory_...` and `growth_gradient_...` below `out`."""
    tables, figures, answer = [], [], []
    claims: list[dict[str, Any]] = []
    for (corpus, reading), runs in of_each.items():
        name = f"{corpus}_{reading}"
        tables.append(_write_table(out / f"table_{name}", corpus, runs))
        with style.context(["default", RC]):
            for draw in (trajectory, growth_gradient):
                save(draw(runs), out / f"{draw.__name__}_{name}")
                figures.append(f"{draw.__name__}_{name}.svg")
        found = [claim | {"reading": reading} for claim in claim_records({corpus: runs})]
        said = [
            f"{c['statement']} {c['verdict'].capitalize()}. {c['evidence']['summary']}"
            for c in found
            if c["id"] in SAID
        ]
        answer += [f"{corpus}, {reading.replace('_', ' ')}: {sentence}" for sentence in said]
        claims += found
    return Answer(TITLE, answer, tables, figures, claims)


def _write_table(stem: Path, corpus: str, runs: Runs) -> Fragment:
    records = {setting: [item.run for item in items] for setting, items in runs.items()}
    paper = load_paper()
    table = make_table(records, corpus, paper.table_for(corpus))
    return write_table(stem, table, layout(table, records, "table2", corpus, paper))
