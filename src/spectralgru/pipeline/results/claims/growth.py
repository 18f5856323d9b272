"""Questions of our own: does the growth along the data tell bursts, and better than the spectral radius at the origin?

Each run, constrained or not, contributes one number: the area under the curve (AUC) with which a column separates its
bursts from its other records.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from spectralgru.pipeline.results.claims.bursts import BURST, FACTOR, MIN_RUNS, Trace, trace_of
from spectralgru.pipeline.results.claims.claim import Claim, decide, paths, signed_rank
from spectralgru.pipeline.results.load import Runs
from spectralgru.pipeline.results.paper import PaperTable

RESAMPLES = 9999
AUC = (
    "AUC: how often a burst has a larger value than another record of its run, ties counting half; 1/2 is chance. "
    "For both columns the larger of the values at the start and end of an interval counts. Intervals (90 %) are of the "
    "mean over runs, by the bootstrap. `ahead` in claims.json uses the values at the start alone. Runs without bursts, "
    "or with bursts only, are left out."
)


@dataclass(frozen=True)
class Told:
    """How well the columns tell the bursts of a run from its other records."""

    trace: Trace
    growth: float
    radius: float
    ahead: dict[str, float]


def growth_tells_bursts(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """Bursts have a larger growth than other records: AUC above 1/2."""
    told = every(runs)
    return _claim(
        corpus,
        told,
        id="bursts-where-growth-is-large",
        statement="The gradient bursts where it grows along the data.",
        test="Wilcoxon signed-rank test over runs of AUC - 1/2",
        differences=[t.growth - 0.5 for t in told],
        said=f"growth along the data tells bursts with AUC {_mean([t.growth for t in told])}",
    )


def growth_tells_more(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """Growth has a larger AUC than the spectral radius."""
    told = every(runs)
    both = (
        ("growth", [t.growth for t in told]),
        ("the spectral radius at the origin", [t.radius for t in told]),
    )
    differences = [t.growth - t.radius for t in told]
    return _claim(
        corpus,
        told,
        id="growth-tells-bursts-better",
        statement="Growth along the data tells bursts better than the spectral radius at the origin.",
        test="Wilcoxon signed-rank test over runs of the difference in AUC",
        differences=differences,
        said=f"AUC of {' and of '.join(f'{name} {_mean(values)}' for name, values in both)}, difference "
        f"{_mean(differences)}",
    )


def every(runs: Runs) -> list[Told]:
    """The runs that have growth, bursts and other records."""
    traces = (trace_of(item, FACTOR) for items in runs.values() for item in items)
    return [told for trace in traces if (told := _told(trace)) is not None]


def _told(trace: Trace) -> Told | None:
    known = ~np.isnan(trace.growth)
    burst = trace.burst[known]
    if not burst.any() or burst.all():
        return None
    columns = {
        name: getattr(trace, name)[known] for name in ("growth", "radius", "growth_before", "radius_before")
    }
    growth, radius, *ahead = (_auc(values, burst) for values in columns.values())
    return Told(trace, growth, radius, dict(zip(("growth", "radius"), ahead, strict=True)))


def _auc(values: Any, burst: Any) -> float:
    ranks = rankdata(values)
    inside, outside = burst.sum(), (~burst).sum()
    return float((ranks[burst].sum() - inside * (inside + 1) / 2) / (inside * outside))


def _claim(
    corpus: str,
    told: Sequence[Told],
    *,
    id: str,
    statement: str,
    test: str,
    differences: list[float],
    said: str,
) -> Claim:
    claim: dict[str, Any] = {
        "id": id,
        "statement": statement,
        "provenance": "O",
        "corpus": corpus,
        "test": test,
        "n": len(told),
        "notes": (BURST, AUC),
        "runs": paths(t.trace.item for t in told),
    }
    if len(told) < MIN_RUNS or not np.any(differences):
        text = f"{len(told)} runs have bursts and other records; the test needs {MIN_RUNS} that are not all alike."
        return Claim(**claim, verdict="undecided", summary=text)
    more, less = signed_rank(differences)
    return Claim(
        **claim,
        verdict=decide(more.pvalue, less.pvalue),
        summary=f"In {len(told)} runs with bursts, {said}.",
        statistic=more.statistic,
        p_value=more.pvalue,
        p_opposite=less.pvalue,
        numbers={
            "by_run": {
                paths([t.trace.item])[0]: {"growth": t.growth, "radius": t.radius, "ahead": t.ahead}
                for t in told
            },
            "by_method": {method: _of_method(told, method) for method in ("constraint", "clipping", "none")},
        },
    )


def _of_method(told: Sequence[Told], method: str) -> dict[str, Any]:
    of = [t for t in told if t.trace.item.run.method == method]
    means = {name: np.mean([getattr(t, name) for t in of]) for name in ("growth", "radius") if of}
    return {"runs": len(of), **means}


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(1)
    low, high = np.percentile(drawn, [5, 95])
    return f"{np.mean(values):.2f} ({low:.2f} to {high:.2f})"
