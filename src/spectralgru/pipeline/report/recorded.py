"""The tables of a campaign, made from what its `provenance.json` says about the runs."""

from pathlib import Path
from typing import Any

from spectralgru.pipeline.provenance.page import Record
from spectralgru.pipeline.report.answer import Best, best_of_each
from spectralgru.pipeline.report.parts import Attachment, forms
from spectralgru.pipeline.results.names import table_names, words_of
from spectralgru.pipeline.results.paper import load_paper
from spectralgru.pipeline.results.render import Fragment, to_fragment
from spectralgru.pipeline.results.tables import layout, make_table
from spectralgru.records import Run
from spectralgru.setting import Setting


def recorded_runs(record: Record) -> dict[str, dict[Setting, list[Run]]]:
    """The runs by corpus and setting, in the order of the tables."""
    runs: dict[str, dict[Setting, list[Run]]] = {corpus: {} for corpus in record["data"]}
    for path, found in record["runs"].items():
        _, corpus, name, seed = path.split("/")
        setting = Setting.parse(name)
        known: dict[str, Any] = {name: found[name] for name in found if name in Run.__dataclass_fields__}
        run = Run(corpus, *setting, int(seed.removeprefix("seed-")), scale=record["scale"], **known)
        runs[corpus].setdefault(setting, []).append(run)
    return runs


def tables(folder: Path, record: Record) -> dict[str, tuple[Fragment, list[Attachment], list[Best]]]:
    """The table of each corpus, with its files that exist in `folder` and the best setting of each method."""
    paper, rendered = load_paper(), {}
    names = table_names(list(record["data"]), words_of(record["data"]))
    for corpus, runs in recorded_runs(record).items():
        numbers = make_table(runs, corpus, paper.table_for(corpus))
        table = to_fragment(names[corpus], layout(numbers, runs, names[corpus], corpus, paper))
        rendered[corpus] = (table, forms(folder, table), best_of_each(corpus, numbers))
    return rendered
