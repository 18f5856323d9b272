"""Sentences of the paper as checks on run records: holds, fails or undecided, with the evidence."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from spectralgru.files import write_json, write_text
from spectralgru.pipeline.results.claims.accuracy import beats_clipping, smaller_delta
from spectralgru.pipeline.results.claims.bounds import origin_stays_stable, sigma_within_bound
from spectralgru.pipeline.results.claims.bursts import bursts_above_one, gradient_follows_radius
from spectralgru.pipeline.results.claims.claim import ALPHA, RULES, Claim, Runs
from spectralgru.pipeline.results.claims.cost import costs_no_more
from spectralgru.pipeline.results.claims.render import to_html, to_markdown
from spectralgru.pipeline.results.claims.success import clipping_fails, never_diverges, prevents_explosion
from spectralgru.pipeline.results.load import RunFiles, load_runs
from spectralgru.pipeline.results.paper import load_paper
from spectralgru.records import Setting

__all__ = ["ALPHA", "CHECKS", "RULES", "Claim", "check_claims", "write_claims"]

CHECKS = (
    prevents_explosion,
    never_diverges,
    clipping_fails,
    beats_clipping,
    smaller_delta,
    sigma_within_bound,
    origin_stays_stable,
    bursts_above_one,
    gradient_follows_radius,
    costs_no_more,
)


def check_claims(items: Sequence[RunFiles], corpus: str) -> list[Claim]:
    """Every claim that the paper makes of `corpus` or the corpus it stands in for, checked on its runs."""
    runs: dict[Setting, list[RunFiles]] = {}
    for item in items:
        runs.setdefault(Setting(item.run.method, item.run.value), []).append(item)
    paper = load_paper().table_for(corpus)
    checked: Runs = runs
    return [claim for check in CHECKS if (claim := check(corpus, checked, paper)) is not None]


def write_claims(
    root: Path, corpora: Mapping[str, Sequence[Setting]], seeds: Sequence[int], scale: str
) -> list[Path]:
    """Write `root/claims.{json,md,html}`; return the paths. Raises InputError naming the first run that is missing."""
    root = Path(root)
    loaded = {c: load_runs(root, c, settings, seeds, scale) for c, settings in corpora.items()}
    claims = [claim for corpus, items in loaded.items() for claim in check_claims(items, corpus)]
    records = [claim.record() for claim in claims]
    write_text(root / "claims.md", to_markdown(records, scale))
    write_text(root / "claims.html", to_html(records, scale))
    write_json(root / "claims.json", records)
    return [root / f"claims.{suffix}" for suffix in ("json", "md", "html")]
