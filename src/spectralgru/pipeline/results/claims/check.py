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

# Those that need no traces.
OF_RUNS = (prevents_explosion, never_diverges, clipping_fails, beats_clipping, smaller_delta)
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
    """The paper's claims about `corpus`, or about the corpus it stands in for, checked on these runs."""
    paper = load_paper().table_for(corpus)
    claims = [claim for check in checks if (claim := check(corpus, runs, paper)) is not None]
    if not (items := next(filter(None, runs.values()), None)):
        return claims
    first = items[0].run
    return [
        replace(claim, scale=first.scale, layers=first.settings["model"]["num_layers"]) for claim in claims
    ]


def claim_records(corpora: Mapping[str, Runs]) -> list[dict[str, Any]]:
    """All claims about these runs, as they are written to claims.json."""
    return correct(claim.record() for corpus, runs in corpora.items() for claim in check_claims(runs, corpus))


def write_claims(campaign: Campaign) -> list[Path]:
    """Write `claims.{json,md,html}` below the campaign's root; return the paths."""
    records, paths = claim_records(campaign.corpora), [campaign.root / name for name in CLAIMS]
    texts = json_text(records), to_markdown(records, campaign.scale), to_html(records, campaign.scale)
    write_together({path: text.encode() for path, text in zip(paths, texts, strict=True)})
    return paths
