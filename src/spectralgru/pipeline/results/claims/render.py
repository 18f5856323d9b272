"""Claims as Markdown and as a page of their own."""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spectralgru.pipeline.results.claims.claim import RULES
from spectralgru.pipeline.results.paper import load_paper

Record = Mapping[str, Any]  # one entry of claims.json
STYLE = """body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5em; max-width: 62em; color: #111; background: #fff }
div { overflow-x: auto } table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid }
th, td { padding: .4em .7em; text-align: left; vertical-align: top } th { font-weight: 500 } td { min-width: 6em }
tr + tr, tbody tr { border-top: 1px solid #999 } .holds { color: #0b6623 } .fails { color: #a11212 }
.undecided { color: #5a5a5a }"""
SIGNS = {"holds": "✓", "fails": "✗", "undecided": "?"}
HEADS = ("verdict", "claim", "evidence", "test")


def statement(claim: Record) -> str:
    """The sentence with the mark that says how surely the paper says so."""
    return f"{claim['statement']}{load_paper().marks[claim['provenance']].symbol}"


def test_line(claim: Record) -> str:
    """Test, statistic, p-value and n in a line."""
    found = claim["evidence"]
    statistic, p = found["statistic"], found["p_value"]
    parts = [found["test"]]
    parts += [] if statistic is None else [f"statistic = {statistic:.3g}"]
    parts += [] if p is None else ["p < 0.001" if p < 1e-3 else f"p = {p:.2g}"]
    return ", ".join([*parts, f"n = {found['n']:,}"])


def footnote(claims: Sequence[Record]) -> str:
    """The rules of the verdicts, and what the marks mean."""
    used = {claim["provenance"] for claim in claims}
    marks = [mark for name, mark in load_paper().marks.items() if name in used]
    told = "; ".join(f"{mark.symbol or 'no mark'}: {mark.meaning}" for mark in marks)
    return f"{RULES} The sentences are ours, after the paper's, which we know thus: {told}."


def by_corpus(claims: Sequence[Record]) -> Iterator[tuple[str, str, list[Record]]]:
    """Corpus, its heading and its claims."""
    stand_in = load_paper().stand_in
    for corpus in dict.fromkeys(claim["corpus"] for claim in claims):
        heading = corpus + (f" (standing in for {stand_in[corpus]})" if corpus in stand_in else "")
        yield corpus, heading, [claim for claim in claims if claim["corpus"] == corpus]


def to_markdown(claims: Sequence[Record], scale: str) -> str:
    """GitHub-flavoured Markdown, one table a corpus."""
    lines = [f"# Claims, {scale} scale", "", footnote(claims)]
    for _, heading, mine in by_corpus(claims):
        lines += ["", f"## {heading}", "", f"| {' | '.join(HEADS)} |", "| --- | --- | --- | --- |"]
        for c in mine:
            cells = (f"**{c['verdict']}**", statement(c), c["evidence"]["summary"], test_line(c))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def to_html(claims: Sequence[Record], scale: str) -> str:
    """A page of its own that needs nothing else."""
    heads = "".join(f'<th scope="col">{head}</th>' for head in HEADS)
    parts = []
    for _, heading, mine in by_corpus(claims):
        rows = []
        for c in mine:
            verdict = f'<td class="{c["verdict"]}">{SIGNS[c["verdict"]]} {c["verdict"]}</td>'
            texts = (statement(c), c["evidence"]["summary"], test_line(c))
            rows.append(f"<tr>{verdict}{''.join(f'<td>{html.escape(text)}</td>' for text in texts)}</tr>")
        parts.append(
            f"<h2>{html.escape(heading)}</h2>\n<div>\n<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n"
            + "\n".join(rows)
            + "\n</tbody>\n</table>\n</div>\n"
        )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Claims, {scale} scale</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n"
        f"<h1>Claims, {scale} scale</h1>\n<p>{html.escape(footnote(claims))}</p>\n"
        + "".join(parts)
        + "</body>\n</html>\n"
    )
