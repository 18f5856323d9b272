"""What the article says: read from the same records, by the same functions, as the report."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spectralgru.pipeline.article.rows import to_rows
from spectralgru.pipeline.article.settings import as_run
from spectralgru.pipeline.provenance.explain import read_record
from spectralgru.pipeline.provenance.page import Record, common
from spectralgru.pipeline.report.kept import kept_sections
from spectralgru.pipeline.report.parts import Figure, Section, figure, read_claims, sections
from spectralgru.pipeline.report.recorded import recorded_runs, tables
from spectralgru.pipeline.results.claims.render import by_corpus, footnote, statement, test_line
from spectralgru.pipeline.results.names import CLAIMS, FIGURE_CAPTIONS, KEPT, WORDS
from spectralgru.pipeline.results.paper import load_paper
from spectralgru.pipeline.results.render import Fragment
from spectralgru.pipeline.results.tables import describe
from spectralgru.pipeline.summary import SUMMARY
from spectralgru.records import Run, Setting

Contents = dict[str, Any]


def read_contents(root: Path) -> Contents:
    """Everything that is known of the campaign in `root` (`results/<scale>`), as JSON.

    Raises InputError naming what is missing or damaged, and how to make it.
    """
    record, claims, paper = read_record(root), read_claims(root), load_paper()
    runs, tables_of = recorded_runs(record), tables(root, "tables", record)
    headings = {corpus: (heading, found) for corpus, heading, found in by_corpus(claims)}
    corpora = [
        _corpus(root, record, corpus, runs[corpus], tables_of[corpus][0], *headings.get(corpus, (corpus, [])))
        for corpus in runs
    ]
    asked = [(_section(part), _claims_of(root / "experiments" / part.id)) for part in sections(root)]
    kept = root.parent.parent / KEPT
    known = [(_section(part), _claims_of(kept / part.id)) for part in kept_sections(root)]
    return {
        "scale": record["scale"],
        "citation": paper.citation,
        "marks": [{"symbol": mark.symbol, "meaning": mark.meaning} for mark in paper.marks.values()],
        "rules": footnote(claims),
        "settings": list(paper.settings),
        "commits": list(dict.fromkeys(run["git_commit"] or "unknown" for run in record["runs"].values())),
        "corpora": corpora,
        "sections": [section | {"claims": found} for section, found in asked if section["id"] != "samples"],
        "kept": [section | {"claims": found} for section, found in known],
        "earlier": _earlier(kept, {part.title for part in sections(root)}),
    }


def drawings(root: Path, contents: Contents) -> dict[str, str]:
    """Every figure of the article (SVG) by the name that it has there."""
    parts = [*contents["corpora"], *contents["sections"], *contents["kept"]]
    names = [drawing["file"] for part in parts for drawing in part["figures"].values()]
    return {name: (root / name).read_text(encoding="utf-8") for name in names}


def _corpus(
    root: Path,
    record: Record,
    corpus: str,
    runs: Mapping[Setting, Sequence[Run]],
    table: Fragment,
    heading: str,
    claims: Sequence[Record],
) -> Contents:
    paper, every = load_paper(), [run for of_setting in runs.values() for run in of_setting]
    theirs, data = paper.table_for(corpus), record["data"][corpus]
    return {
        "name": corpus,
        "heading": heading,
        "words": corpus in WORDS,
        "paper": theirs.corpus if theirs else None,
        "stand_in": paper.stand_in.get(corpus),
        "setup": describe(every[0]),
        "runs": len(every),
        "seeds": len({run.seed for run in every}),
        "lost": sum(run.status == "diverged" for run in every),
        "methods": list(dict.fromkeys(setting.method for setting in runs)),
        "counts": data["counts"],
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
        "claims": [_claim(claim) for claim in claims],
        "provenance": list(common(record, corpus, [r for p, r in record["runs"].items() if f"/{corpus}/" in p])),
    }


def _section(part: Section) -> Contents:
    return {
        "id": part.id,
        "title": part.title,
        "answer": part.answer,
        "tables": [to_rows(table) for table, _ in part.tables],
        "figures": {drawing.files[0]: _figure(drawing) for drawing in part.figures},
    }


def _figure(drawing: Figure) -> Contents:
    return {"file": drawing.files[0], "caption": drawing.caption}


def _earlier(kept: Path, titles: set[str]) -> list[Contents]:
    """Answers of experiments that are kept and were not asked again."""
    said = {
        path.parent.relative_to(kept).as_posix(): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(kept.glob(f"**/{SUMMARY}"))
    }
    return [
        {"id": name, "title": summary["title"], "answer": summary["answer"]}
        for name, summary in said.items()
        if summary["title"] not in titles
    ]


def _claims_of(folder: Path) -> list[Contents]:
    """The claims about an experiment or a kept campaign; none if it makes none."""
    return [_claim(claim) for claim in _read_claims(folder)]


def _read_claims(folder: Path) -> Iterator[Record]:
    if (folder / CLAIMS[0]).exists():
        yield from read_claims(folder)
    elif (folder / SUMMARY).exists():
        yield from json.loads((folder / SUMMARY).read_text(encoding="utf-8")).get("claims", [])


def _claim(claim: Record) -> Contents:
    return {
        "id": claim["id"],
        "corpus": claim["corpus"],
        "layers": claim.get("layers"),
        "reading": claim.get("reading"),
        "verdict": claim["verdict"],
        "statement": statement(claim),
        "summary": claim["evidence"]["summary"],
        "test": test_line(claim),
    }
