"""`results/<scale>/report.html`: the page that a reader opens first, in one self-contained file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spectralgru.errors import InputError
from spectralgru.files import write_text
from spectralgru.pipeline.pages import render
from spectralgru.pipeline.provenance.explain import read_record
from spectralgru.pipeline.provenance.page import Record, common
from spectralgru.pipeline.provenance.record import report_made_from
from spectralgru.pipeline.report.answer import WORDS, Best, questions
from spectralgru.pipeline.report.claimed import every_claim
from spectralgru.pipeline.report.kept import kept_sections
from spectralgru.pipeline.report.parts import Attachment, figure, read_claims, sections
from spectralgru.pipeline.report.recorded import tables
from spectralgru.pipeline.results.claims.marks import SIGNS, statement
from spectralgru.pipeline.results.claims.overview import NOTE, Overview, experiment
from spectralgru.pipeline.results.claims.render import by_corpus, footnote, test_line
from spectralgru.pipeline.results.names import FIGURE_CAPTIONS, REPORT
from spectralgru.pipeline.results.paper import load_paper
from spectralgru.pipeline.results.render import Fragment
from spectralgru.pipeline.results.tables import METRICS, describe
from spectralgru.records import read_run
from spectralgru.seal import OPEN, sealed


def write_report(root: Path) -> Path:
    """Write the page about tables, figures, claims, provenance and experiments below `root`, and kept campaigns.

    Raises InputError if one of the first four is missing, naming it and how to make it.
    """
    root = Path(root)
    record, claims = read_record(root), read_claims(root)
    made = tables(root / "tables", record)
    corpora = [_corpus(root, record, claims, corpus, *found) for corpus, found in made.items()]
    every = every_claim(root)
    page = render(
        "report.html",
        seal=OPEN,
        made_from=report_made_from(root),
        scale=record["scale"],
        overview=Overview.of(every),
        overview_note=NOTE,
        statement=statement,
        test_line=test_line,
        signs=SIGNS,
        paper=load_paper(),
        headline=headline(claims, record["scale"]),
        questions=questions(claims, every),
        words=WORDS,
        experiment=experiment,
        corpora=corpora,
        sections=[*kept_sections(root), *sections(root)],
        rules=footnote(claims),
        runs=len(record["runs"]),
    )
    write_text(root / REPORT, sealed(page))
    return root / REPORT


def headline(claims: Sequence[Mapping[str, Any]], scale: str) -> str:
    """A sentence that counts the claims by verdict."""
    corpora = list(dict.fromkeys(claim["corpus"] for claim in claims))
    return f"At {scale} scale, on {' and '.join(corpora)}, {_counted(claims)}"


def _corpus(
    root: Path,
    record: Record,
    claims: Sequence[Record],
    corpus: str,
    table: Fragment,
    files: list[Attachment],
    best: list[Best],
) -> dict[str, Any]:
    found = next(by_corpus([claim for claim in claims if claim["corpus"] == corpus]), None)
    if found is None:
        raise InputError(f"{root}/claims.json: none about {corpus}; make them with `spectralgru claims`")
    _, heading, of_corpus = found
    runs = {p: run for p, run in record["runs"].items() if p.startswith(f"runs/{corpus}/")}
    return {
        "name": corpus,
        "heading": heading,
        "setup": describe(read_run(root / next(iter(runs)))),
        "counted": _counted(of_corpus),
        "claims": of_corpus,
        "table": table,
        "table_files": files,
        "best": best,
        "metric": METRICS[next(iter(runs.values()))["metric"]],
        "figures": [
            figure(root, f"figures/{corpus}-{what}.svg", caption) for what, caption in FIGURE_CAPTIONS.items()
        ],
        "provenance": list(common(record, corpus, list(runs.values()))),
    }


def _counted(claims: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(claim["verdict"] for claim in claims)
    held, failed, open_ = (counts[verdict] for verdict in ("holds", "fails", "undecided"))
    corrected = Counter(claim["verdict_holm"] for claim in claims)
    return (
        f"{held} of {len(claims)} claims {'holds' if held == 1 else 'hold'}, {failed} "
        f"{'fails' if failed == 1 else 'fail'}, {open_} {'is' if open_ == 1 else 'are'} undecided; "
        f"{corrected['holds']}, {corrected['fails']} and {corrected['undecided']} after Holm's correction."
    )
