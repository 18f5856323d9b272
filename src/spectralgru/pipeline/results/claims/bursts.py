"""Claims about where the gradient bursts: at a spectral radius above 1, where the origin loses its stability.

Successive records of a run depend on one another, so no test here treats them as independent. Chance is estimated by
shifting a run's bursts against its spectral radius, or whole runs are the units.
"""

from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, fisher_exact, spearmanr

from spectralgru.pipeline.results.claims.claim import Claim, Verdict, decide, of_method, paths, signed_rank
from spectralgru.pipeline.results.claims.levels import ALPHA
from spectralgru.pipeline.results.load import RunFiles, Runs
from spectralgru.pipeline.results.paper import PaperTable

FACTOR = 3.0  # a burst is a gradient norm this many times its recent level
FACTORS = (2.0, FACTOR, 5.0)  # reported, so that a reader sees the effect of the choice
LEVEL_RECORDS = 15  # the level is the median of this many earlier records without bursts
FIRST_RECORDS = 5  # with fewer records there is no level
MIN_RUNS = 3  # that cross 1
SHIFTS = 9999
BURST = (
    "A burst is a record whose gradient norm (before clipping, largest of its interval) is not finite or exceeds "
    f"{FACTOR:g} times its level, the median of the last {LEVEL_RECORDS} records before it that were not bursts. A "
    "record is above 1 if the spectral radius is at least 1 at the start or end of its interval. Runs that never "
    "cross 1 have nothing to say here and are left out."
)


@dataclass(frozen=True)
class Trace:
    """The records of a run that can be compared with a level, in order."""

    item: RunFiles
    radius: Any  # larger of the spectral radii at the interval's start and end
    radius_before: Any  # at the start
    growth: Any  # like `radius`, of the growth along the data; NaN where it was not measured
    growth_before: Any
    strength: Any  # gradient norm over its level; infinite where it is not finite
    burst: Any  # whether it is a burst

    @property
    def above(self) -> Any:
        """Whether the origin is unstable."""
        return self.radius >= 1

    @property
    def crosses(self) -> bool:
        """Whether there are records on both sides of 1."""
        return bool(self.above.any() and not self.above.all())

    @property
    def counts(self) -> list[list[int]]:
        """Numbers of bursts and of other records: above 1, then below."""
        return [
            [int((side & self.burst).sum()), int((side & ~self.burst).sum())]
            for side in (self.above, ~self.above)
        ]

    @property
    def onsets(self) -> tuple[int, int]:
        """Number of bursts that follow a record without one: above 1, then below."""
        first = self.burst & ~np.concatenate([[False], self.burst[:-1]])
        return int((first & self.above).sum()), int((first & ~self.above).sum())


def bursts_above_one(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """In clipped and unconstrained runs, bursts are more frequent above 1 than below, and start there."""
    traces = crossing(runs, FACTOR)
    claim: dict[str, Any] = {
        "id": "bursts-where-radius-crosses-one",
        "statement": "Without the constraint the gradient bursts where the spectral radius of the Jacobian at the "
        "origin crosses 1.",
        "provenance": "S",
        "corpus": corpus,
        "test": f"excess of bursts above 1, {SHIFTS:,} circular shifts within runs",
        "n": len(traces),
    }
    total = len(of_method(runs, "clipping", "none"))
    if len(traces) < MIN_RUNS:
        text = f"{len(traces)} of {total} clipped and unconstrained runs cross 1; the test needs {MIN_RUNS}."
        return Claim(**claim, verdict="undecided", summary=text, notes=(BURST,))
    excess, more = _shift_test(traces)
    started = np.sum([trace.onsets for trace in traces], axis=0)
    below = (
        binomtest(int(started[1]), int(started.sum()), 0.5, alternative="greater").pvalue
        if started.any()
        else 1.0
    )
    counts = np.sum([trace.counts for trace in traces], axis=0)
    sums = counts.sum(axis=1)
    return Claim(
        **claim,
        verdict=_verdict(more, below),
        summary=f"In the {len(traces)} of {total} clipped and unconstrained runs that cross 1, {counts[0, 0]} of "
        f"{sums[0]} records above 1 are bursts and {counts[1, 0]} of {sums[1]} below; {started[0]} bursts start above "
        f"1 and {started[1]} below.",
        statistic=excess,
        p_value=more,
        p_opposite=below,
        opposite="binomial test that most bursts start below",
        numbers={
            "starts_above_below": started.tolist(),
            "p_most_start_below": below,
            "by_factor": {f"{factor:g}": _by_factor(runs, factor) for factor in FACTORS},
            "by_run": {paths([trace.item])[0]: _of_run(trace) for trace in traces},
        },
        notes=(
            BURST,
            "The claim holds if bursts are more frequent above 1 than in random shifts, fails if most start below "
            "(binomial test), and is undecided if both are true or neither. Fisher's test of each run, in "
            "claims.json, treats records as independent. Cause and effect remain open: a burst can also throw the "
            "weights beyond 1.",
        ),
        runs=paths(trace.item for trace in traces),
    )


def gradient_follows_radius(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """In clipped and unconstrained runs that cross 1, the gradient's strength is rank-correlated with the radius."""
    traces = crossing(runs, FACTOR)
    found = {
        paths([trace.item])[0]: float(spearmanr(trace.radius, trace.strength).statistic)
        for trace in traces
        if len(np.unique(trace.strength)) > 1
    }
    rhos = np.array(list(found.values()))
    claim: dict[str, Any] = {
        "id": "gradient-rises-with-radius",
        "statement": "Without the constraint the gradient rises with the spectral radius.",
        "provenance": "S",
        "corpus": corpus,
        "test": "Wilcoxon signed-rank test over runs of Spearman's rank correlation within each",
        "n": len(rhos),
    }
    if len(rhos) < MIN_RUNS:
        text = f"{len(rhos)} clipped and unconstrained runs cross 1; the test needs {MIN_RUNS}."
        return Claim(**claim, verdict="undecided", summary=text)
    rises, falls = signed_rank(list(found.values()))
    return Claim(
        **claim,
        verdict=decide(rises.pvalue, falls.pvalue),
        summary=f"Rank correlation of spectral radius and gradient norm (over its level so far) in the {len(rhos)} "
        f"runs that cross 1: median {np.median(rhos):+.2f}, from {rhos.min():+.2f} to {rhos.max():+.2f}.",
        statistic=rises.statistic,
        p_value=rises.pvalue,
        p_opposite=falls.pvalue,
        numbers={"spearman": found},
        notes=(
            "The level is the median of the records before, without bursts. Dividing by it removes the gradient's slow "
            "drift, which follows training rather than the radius.",
        ),
        runs=paths(trace.item for trace in traces),
    )


def crossing(runs: Runs, factor: float) -> list[Trace]:
    """Clipped and unconstrained runs with records on both sides of 1."""
    traces = (trace_of(item, factor) for item in of_method(runs, "clipping", "none"))
    return [trace for trace in traces if trace.crosses]


def trace_of(item: RunFiles, factor: float) -> Trace:
    """The trace of a run; bursts exceed their level by `factor`."""
    norms = item.steps["grad_norm"].to_numpy(dtype=float)
    radius, radius_before = _around(item.steps["spectral_radius"])
    growth, growth_before = _around(item.steps.get("growth", pd.Series(np.nan, item.steps.index)))
    strength = np.full(len(norms), np.nan)
    level: list[float] = []
    for i, norm in enumerate(norms):
        if len(level) >= FIRST_RECORDS:
            strength[i] = norm / median(level[-LEVEL_RECORDS:]) if np.isfinite(norm) else np.inf
        if np.isfinite(norm) and not strength[i] > factor:
            level.append(norm)
    known = ~np.isnan(strength) & ~np.isnan(radius)
    columns = (radius, radius_before, growth, growth_before, strength, strength > factor)
    return Trace(item, *(column[known] for column in columns))


def _around(ends: pd.Series) -> tuple[Any, Any]:
    """From values at the ends of intervals: the larger of each interval's start and end, and that at its start."""
    values = ends.to_numpy(dtype=float)
    before = np.concatenate([values[:1], values[:-1]])
    return np.fmax(values, before), before


def _shift_test(traces: list[Trace]) -> tuple[float, float]:
    """The excess of bursts above 1 over equal rates, and how often shifted bursts show as much."""
    random = np.random.default_rng(0)
    observed, chance = 0.0, np.zeros(SHIFTS)
    for trace in traces:
        shifted = np.array([(trace.above & np.roll(trace.burst, k)).sum() for k in range(len(trace.burst))])
        excess = shifted - trace.above.mean() * trace.burst.sum()
        observed += float(excess[0])
        chance += excess[random.integers(0, len(excess), SHIFTS)]
    # The margin is for rounding: sums in another order differ.
    more = (1 + int((chance >= observed - 1e-9).sum())) / (SHIFTS + 1)
    return observed, more


def _verdict(more: float, below: float) -> Verdict:
    if (more < ALPHA) == (below < ALPHA):
        return "undecided"  # neither is significant, or they contradict each other
    return decide(more, below)


def _by_factor(runs: Runs, factor: float) -> dict[str, Any]:
    traces = crossing(runs, factor)
    above, below = np.sum([trace.counts for trace in traces], axis=0)
    return {"bursts_above": int(above[0]), "bursts_below": int(below[0]), "p_value": _shift_test(traces)[1]}


def _of_run(trace: Trace) -> dict[str, Any]:
    (a, b), (c, d) = trace.counts
    p = fisher_exact([[a, b], [c, d]], alternative="greater").pvalue
    return {
        "bursts_above": a,
        "records_above": a + b,
        "bursts_below": c,
        "records_below": c + d,
        "fisher_p": p,
    }
