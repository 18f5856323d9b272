"""Campaigns kept in `reproduction/`, beside `results/`: those with an `answer.json` are shown in the report."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spectralgru.errors import InputError
from spectralgru.pipeline.provenance.explain import Record, read_record
from spectralgru.pipeline.results.names import FIGURE_CAPTIONS, KEPT, table_names
from spectralgru.pipeline.results.paper import load_paper
from spectralgru.pipeline.results.render import Rendered, to_html
from spectralgru.pipeline.results.report.parts import Section, Table, figure, present, table_of
from spectralgru.pipeline.results.tables import caption, make_table
from spectralgru.records import Run

CURVES = "learning_curves"
LINKS = {
    "README.md": "Commands, hardware, versions, time and findings",
    "claims.md": "Claims, with their tests",
    "runs.csv": "Every run in a line",
}


def kept_sections(root: Path) -> list[Section]:
    """A section a record, the latest first; `root` is `results/<scale>`.

    Raises InputError naming a file of a record that is missing or not what it should be.
    """
    answers = sorted((root.parent.parent / KEPT).glob("*/answer.json"), reverse=True)
    return [_section(root, path) for path in answers]


def kept_runs(record: Record) -> dict[str, list[Run]]:
    """The runs of a record's `provenance.json` by corpus, in the order of its table."""
    runs: dict[str, list[Run]] = {corpus: [] for corpus in record["data"]}
    for path, found in record["runs"].items():
        _, corpus, setting, seed = path.split("/")
        method, _, value = setting.partition("-")
        known: dict[str, Any] = {name: found[name] for name in found if name in Run.__dataclass_fields__}
        which = (corpus, method, float(value) if value else None, int(seed.removeprefix("seed-")))
        runs[corpus].append(Run(*which, scale=record["scale"], **known))
    return runs


def _section(root: Path, path: Path) -> Section:
    folder = f"../../{KEPT}/{path.parent.name}"
    record = read_record(path.parent)
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
        names = table_names(list(record["data"]))
        tables = list(_tables(root, folder, record, names))
        figures = [
            figure(root, f"{folder}/{corpus}-{CURVES}.svg", FIGURE_CAPTIONS[CURVES]) for corpus in names
        ]
        links = [(text, href) for name, text in LINKS.items() for href in present(root, [f"{folder}/{name}"])]
        return Section(path.parent.name, answer["title"], answer["answer"], tables, figures, links, [])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not the answer of a record ({error!r}); restore it from the repository"
        ) from None


def _tables(
    root: Path, folder: str, record: Record, names: dict[str, str]
) -> Iterator[tuple[Table, list[str]]]:
    paper = load_paper()
    for corpus, runs in kept_runs(record).items():
        settings = list(dict.fromkeys((run.method, run.value) for run in runs))
        numbers = make_table(runs, corpus, settings, paper.table_for(corpus))
        shown = Rendered.of(numbers, settings, caption(names[corpus], runs, corpus, paper), paper)
        files = present(root, [f"{folder}/{names[corpus]}.{suffix}" for suffix in ("csv", "md")])
        yield table_of(to_html(shown)), files
