"""Campaigns kept in `reproduction/`, beside `results/`. The report shows those with an `answer.json`."""

import json
from pathlib import Path

from spectralgru.errors import InputError
from spectralgru.pipeline.provenance.explain import read_record
from spectralgru.pipeline.report.parts import Section, figure
from spectralgru.pipeline.report.recorded import tables
from spectralgru.pipeline.results.names import FIGURE_CAPTIONS, KEPT, table_names, words_of

CURVES = "learning_curves"


def kept_sections(root: Path) -> list[Section]:
    """One section for each kept campaign, the latest first; `root` is `results/<scale>`.

    Raises InputError naming a file that is missing or invalid.
    """
    answers = sorted((root.parent.parent / KEPT).glob("*/answer.json"), reverse=True)
    return [_section(root, path) for path in answers]


def _section(root: Path, path: Path) -> Section:
    folder = f"../../{KEPT}/{path.parent.name}"
    record = read_record(path.parent)
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
        names = table_names(list(record["data"]), words_of(record["data"]))
        rendered = [(table, files) for table, files, _ in tables(path.parent, record).values()]
        figures = [
            figure(root, f"{folder}/{corpus}-{CURVES}.svg", FIGURE_CAPTIONS[CURVES]) for corpus in names
        ]
        return Section(
            path.parent.name,
            answer["title"],
            answer["answer"],
            rendered,
            figures,
            folder=f"{KEPT}/{path.parent.name}/",
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not the answer of a record ({error!r}); restore it from the repository"
        ) from None
