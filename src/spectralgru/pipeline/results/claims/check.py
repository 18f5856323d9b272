"""All claims checked on a campaign: holds, fails or undecided, with the evidence."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spectralgru.files import json_text, write_together
from spectralgru.pipeline.results.claims.accuracy import beats_clipping, smaller_delta
from spectralgru.pipeline.results.claims.bounds import origin_stays_stable, sigma_within_bound
from spectralgru.pipeline.results.claims.bursts import bursts_above_one, gradient_follows_radius
from spectralgru.pipeline.results.claims.claim import Claim
from spectralgru.pipeline.results.claims.cost import costs_no_more
from spectralgru.pipeline.results.claims.growth import growth_tells_bursts, growth_tells_more
from spectralgru.pipeline.results.claims.levels import correct
from spectralgru.pipeline.results.claims.render import to_html, to_markdown
from spectralgru.pipeline.results.claims.success import clipping_fails, never_diverges, prevents_explosion
from spectralgru.pipeline.results.load import Campaign, Runs
from spectralgru.pipeline.results.names import CLAIMS
from spectralgru.pipeline.results.paper import PaperTable, load_paper

Check = Callable[[str, Runs, PaperTable | None], Claim | None]

OF_RUNS = (
    prevents_explosion,
    never_diverges,
    clipping_fails,
    beats_clipping,
    smaller_delta,
)  # need no traces
CHECKS = (
    *OF_RUNS,
    sigma_within_bound,
    origin_stays_stable,
    bursts_above_one,
    gradient_follows_radius,
    growth_tells_bursts,
    growth_tells_more,
    costs_no_more,
)


def check_claims(runs: Runs, corpus: str, checks: Sequence[Check] = CHECKS) -> list[Claim]:
    """Claims that the paper makes about `corpus`, or the corpus it stands in for, checked on its runs."""
    paper = load_paper().table_for(corpus)
    claims = [claim for check in checks if (claim := check(corpus, runs, paper)) is not None]
    for run in (item.run for items in runs.values() for item in items[:1]):
        return [replace(c, scale=run.scale, layers=run.settings["model"]["num_layers"]) for c in claims]
    return claims


def claim_records(corpora: Mapping[str, Runs]) -> list[dict[str, Any]]:
    """Every claim about these runs, as in claims.json: those of a page."""
    return correct(claim.record() for corpus, runs in corpora.items() for claim in check_claims(runs, corpus))


def write_claims(campaign: Campaign) -> list[Path]:
    """Write `claims.{json,md,html}` below the campaign's root; return the paths."""
    records, paths = claim_records(campaign.corpora), [campaign.root / name for name in CLAIMS]
    texts = json_text(records), to_markdown(records, campaign.scale), to_html(records, campaign.scale)
    write_together({path: text.encode() for path, text in zip(paths, texts, strict=True)})
    return paths
