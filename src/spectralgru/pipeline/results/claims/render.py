"""Claims as Markdown and as a page of their own."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spectralgru.pipeline.pages import render
from spectralgru.pipeline.results.claims.claim import RULES
from spectralgru.pipeline.results.paper import load_paper

Record = Mapping[str, Any]  # one entry of claims.json
SIGNS = {"holds": "✓", "fails": "✗", "undecided": "?"}
HEADS = ("verdict", "claim", "evidence", "test")


def statement(claim: Record) -> str:
    """The sentence with the mark that says how surely it is in the paper."""
    return f"{claim['statement']}{load_paper().marks[claim['provenance']].symbol}"


def test_line(claim: Record) -> str:
    """Test, statistic, p-value and n in a line."""
    evidence = claim["evidence"]
    statistic, p = evidence["statistic"], evidence["p_value"]
    parts = [evidence["test"]]
    parts += [] if statistic is None else [f"statistic = {statistic:.3g}"]
    parts += [] if p is None else ["p < 0.001" if p < 1e-3 else f"p = {p:.2g}"]
    return ", ".join([*parts, f"n = {evidence['n']:,}"])


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
    """GitHub-flavoured Markdown, one table for each corpus."""
    lines = [f"# Claims, {scale} scale", "", footnote(claims)]
    for _, heading, of_corpus in by_corpus(claims):
        lines += ["", f"## {heading}", "", f"| {' | '.join(HEADS)} |", "| --- | --- | --- | --- |"]
        for c in of_corpus:
            cells = (f"**{c['verdict']}**", statement(c), c["evidence"]["summary"], test_line(c))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def to_html(claims: Sequence[Record], scale: str) -> str:
    """A self-contained page."""
    return render(
        "claims.html",
        scale=scale,
        rules=footnote(claims),
        corpora=[(heading, of_corpus) for _, heading, of_corpus in by_corpus(claims)],
        heads=HEADS,
        signs=SIGNS,
        statement=statement,
        test_line=test_line,
    )
