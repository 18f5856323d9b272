"""Claims as Markdown and as an HTML page."""

from collections.abc import Iterator, Sequence

from spectralgru.pipeline.pages import render
from spectralgru.pipeline.results.claims.levels import ALPHA, POWER
from spectralgru.pipeline.results.claims.marks import SIGNS, Record, statement
from spectralgru.pipeline.results.claims.overview import NOTE, Overview
from spectralgru.pipeline.results.outcome import RULE
from spectralgru.pipeline.results.paper import load_paper

MANY = 1000  # seeds; a larger number would suggest a precision that it lacks
HEADS = ("verdict", "claim", "evidence", "test")

RULES = (
    f"Every test is one-sided, at the level {ALPHA:g}. A claim holds if the test for it is significant. It fails if "
    "the test for its opposite is significant, or if a record contradicts a claim about every record. Otherwise, and "
    "whenever runs are missing or too few, it is undecided. After Holm: twice the smaller p-value of each claim, "
    "corrected for the number of claims tested on this page, at the same level. The number of seeds that would settle "
    f"an undecided claim gives {100 * POWER:.0f} % power if the observed effect is the true one; it is an order of "
    f"magnitude. {RULE} Verdicts are for runs of this scale and corpus."
)


def test_line(claim: Record) -> str:
    """Test, statistic, p-values and n; the verdict after Holm's correction; how many seeds would settle the claim."""
    evidence = claim["evidence"]
    statistic, p, against = (evidence[name] for name in ("statistic", "p_value", "p_opposite"))
    parts = [evidence["test"]]
    parts += [] if statistic is None else [f"statistic = {statistic:.3g}"]
    parts += [] if p is None else [_p(p)]
    if against is not None:
        other = f" ({evidence['opposite']})" if evidence["opposite"] else ""
        parts.append(f"{_p(against)} for the opposite{other}")
    line = ", ".join([*parts, f"n = {evidence['n']:,}"])
    if evidence["p_holm"] is not None:
        line += f"; after Holm {_p(evidence['p_holm'])}: {claim['verdict_holm']}"
    if claim["verdict"] == "undecided" and p is not None and against is not None and max(p, against) < ALPHA:
        line += "; the two tests contradict each other"
    if claim["verdict"] == "undecided" and evidence["seeds_needed"]:
        needed = evidence["seeds_needed"]
        many = f"about {needed:,} seeds" if needed <= MANY else f"more than {MANY:,} seeds"
        line += f"; {many} would settle it ({evidence['seeds']} here)"
    return line


def _p(value: float) -> str:
    return "p < 0.001" if value < 1e-3 else f"p = {value:.2g}"


def footnote(claims: Sequence[Record]) -> str:
    """The rules of the verdicts, and what the marks mean."""
    used = {claim["provenance"] for claim in claims}
    marks = [mark for name, mark in load_paper().marks.items() if name in used]
    told = "; ".join(f"{mark.symbol or 'no mark'}: {mark.meaning}" for mark in marks)
    return f"{RULES} The statements are in our words; the marks say how surely we know those of the paper: {told}."


def by_corpus(claims: Sequence[Record]) -> Iterator[tuple[str, str, list[Record]]]:
    """Corpus, its heading and its claims."""
    stand_in = load_paper().stand_in
    for corpus in dict.fromkeys(claim["corpus"] for claim in claims):
        heading = corpus + (f" (standing in for {stand_in[corpus]})" if corpus in stand_in else "")
        yield corpus, heading, [claim for claim in claims if claim["corpus"] == corpus]


def to_markdown(claims: Sequence[Record], scale: str) -> str:
    """GitHub-flavoured Markdown, one table for each corpus."""
    lines = [f"# Claims, {scale} scale", "", footnote(claims), "", Overview.of(claims).markdown()]
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
        overview=Overview.of(claims),
        overview_note=NOTE,
        heads=HEADS,
        signs=SIGNS,
        statement=statement,
        test_line=test_line,
    )
