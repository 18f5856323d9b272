"""What a campaign's `provenance.json` says of its runs is enough for its tables."""

from pathlib import Path
from typing import Any

from spectralgru.pipeline.provenance.explain import Record
from spectralgru.pipeline.report.parts import forms
from spectralgru.pipeline.results.names import table_names
from spectralgru.pipeline.results.paper import load_paper
from spectralgru.pipeline.results.render import Fragment, Rendered, to_fragment
from spectralgru.pipeline.results.tables import caption, make_table
from spectralgru.records import Run, Setting


def recorded_runs(record: Record) -> dict[str, list[Run]]:
    """The runs of a record's `provenance.json` by corpus, in the order of its table."""
    runs: dict[str, list[Run]] = {corpus: [] for corpus in record["data"]}
    for path, found in record["runs"].items():
        _, corpus, setting, seed = path.split("/")
        known: dict[str, Any] = {name: found[name] for name in found if name in Run.__dataclass_fields__}
        which = (corpus, *Setting.parse(setting), int(seed.removeprefix("seed-")))
        runs[corpus].append(Run(*which, scale=record["scale"], **known))
    return runs


def tables(root: Path, folder: str, record: Record) -> dict[str, tuple[Fragment, list[str]]]:
    """The table of each corpus, with those of its files that are in `root/folder`."""
    paper, names, made = load_paper(), table_names(list(record["data"])), {}
    for corpus, runs in recorded_runs(record).items():
        settings = list(dict.fromkeys(Setting(run.method, run.value) for run in runs))
        numbers = make_table(runs, corpus, settings, paper.table_for(corpus))
        shown = Rendered.of(numbers, settings, caption(names[corpus], runs, corpus, paper), paper)
        table = to_fragment(names[corpus], shown)
        made[corpus] = (table, forms(root, folder, table))
    return made
