"""The contents of the article, read from the same records and by the same functions as the report."""

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spectralgru.errors import InputError
from spectralgru.pipeline.article.rows import to_rows
from spectralgru.pipeline.article.settings import as_run
from spectralgru.pipeline.provenance.explain import read_record
from spectralgru.pipeline.provenance.page import Record, common
from spectralgru.pipeline.report.claimed import every_claim
from spectralgru.pipeline.report.kept import kept_sections
from spectralgru.pipeline.report.parts import Figure, Section, figure, read_claims, sections
from spectralgru.pipeline.report.recorded import recorded_runs, tables
from spectralgru.pipeline.results.claims.marks import statement
from spectralgru.pipeline.results.claims.overview import NOTE, experiment
from spectralgru.pipeline.results.claims.render import footnote, test_line
from spectralgru.pipeline.results.names import FIGURE_CAPTIONS, KEPT, words_of
from spectralgru.pipeline.results.outcome import outcome
from spectralgru.pipeline.results.paper import load_paper
from spectralgru.pipeline.results.render import Fragment
from spectralgru.pipeline.results.tables import describe
from spectralgru.pipeline.summary import SUMMARY
from spectralgru.records import Run
from spectralgru.setting import Setting

Contents = dict[str, Any]
SPLITS = {"train": "training", "valid": "validation", "test": "testing"}


def read_contents(root: Path) -> Contents:
    """Everything known about the campaign in `root` (`results/<scale>`), as JSON.

    Raises InputError naming what is missing or damaged, and how to make it.
    """
    record, claims, paper = read_record(root), read_claims(root), load_paper()
    runs, tables_of, parts = recorded_runs(record), tables(root / "tables", record), sections(root)
    return {
        "scale": record["scale"],
        "citation": paper.citation,
        "marks": [{"symbol": mark.symbol, "meaning": mark.meaning} for mark in paper.marks.values()],
        "rules": footnote(claims),
        "settings": list(paper.settings),
        "commits": list(dict.fromkeys(run["git_commit"] or "unknown" for run in record["runs"].values())),
        "corpora": [_corpus(root, record, corpus, runs[corpus], tables_of[corpus][0]) for corpus in runs],
        "claims": [_claim(claim) for claim in claims],
        "judged": [_claim(claim) for claim in every_claim(root)],
        "note": NOTE,
        "sections": [_section(part) for part in parts if part.id != "samples"],
        "kept": [_section(part) for part in kept_sections(root)],
        "earlier": _earlier(root.parent.parent / KEPT, {part.title for part in parts}),
    }


def without_drawings(contents: Any) -> Any:
    """The contents without the drawings; captions stay."""
    if isinstance(contents, dict):
        return {name: without_drawings(value) for name, value in contents.items() if name != "svg"}
    return [without_drawings(value) for value in contents] if isinstance(contents, list) else contents


def _corpus(
    root: Path, record: Record, corpus: str, runs: Mapping[Setting, Sequence[Run]], table: Fragment
) -> Contents:
    paper, every = load_paper(), [run for of_setting in runs.values() for run in of_setting]
    theirs, data = paper.table_for(corpus), record["data"][corpus]
    return {
        "name": corpus,
        "words": corpus in words_of(record["data"]),
        "paper": theirs.corpus if theirs else None,
        "stand_in": paper.stand_in.get(corpus),
        "setup": describe(every[0]),
        "runs": len(every),
        "seeds": len({run.seed for run in every}),
        **{how: sum(outcome(run) == how for run in every) for how in ("lost", "broken")},
        "methods": list(dict.fromkeys(setting.method for setting in runs)),
        "counts": [(SPLITS[split], _sizes(counts)) for split, counts in data["counts"].items()],
        "licence": data["licence"],
        "settings": {
            name: {"paper": of_corpus.get(theirs.corpus) if theirs else None, "ours": as_run(name, runs)}
            for name, of_corpus in paper.settings.items()
        },
        "table": to_rows(table),
        "figures": {
            name: _figure(figure(root, f"figures/{corpus}-{name}.svg", caption))
            for name, caption in FIGURE_CAPTIONS.items()
        },
        "provenance": list(
            common(record, corpus, [r for p, r in record["runs"].items() if f"/{corpus}/" in p])
        ),
    }


def _sizes(counts: Mapping[str, int]) -> str:
    """The counts with their units."""
    return ", ".join(f"{count:,} {unit}" for unit, count in counts.items())


def _section(part: Section) -> Contents:
    return {
        "id": part.id,
        "title": part.title,
        "answer": part.answer,
        "tables": [to_rows(table) for table, _ in part.tables],
        "figures": [_figure(drawing) for drawing in part.figures],
    }


def _figure(drawing: Figure) -> Contents:
    _, _, svg = drawing.source.partition(",")  # of a data: URL
    return {"caption": drawing.caption, "svg": b64decode(svg).decode()}


def _earlier(kept: Path, titles: set[str]) -> list[Contents]:
    """Answers of kept experiments that were not run again."""
    answers = []
    for path in sorted(kept.glob(f"**/{SUMMARY}")):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            answer = {"title": said["title"], "answer": list(said["answer"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a summary ({error!r}); restore it from the repository") from None
        if answer["title"] not in titles:
            answers.append({"id": path.parent.relative_to(kept).as_posix(), **answer})
    return answers


def _claim(claim: Record) -> Contents:
    return {
        "id": claim["id"],
        "corpus": claim["corpus"],
        "experiment": experiment(claim),
        "verdict": claim["verdict"],
        "corrected": claim["verdict_holm"],
        "statement": statement(claim),
        "summary": claim["evidence"]["summary"],
        "test": test_line(claim),
    }
