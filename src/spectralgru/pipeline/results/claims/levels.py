"""What accompanies a verdict: the p-value corrected for the other claims, and how many seeds would settle it."""

from collections.abc import Iterable, Sequence
from math import ceil, isfinite
from statistics import NormalDist
from typing import Any

ALPHA = 0.05
POWER = 0.8


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p-values with Holm's correction for their number; those that could not be computed do not count."""
    order = sorted((p, i) for i, p in enumerate(values) if p is not None and isfinite(p))
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[i] = largest
    return corrected


def correct(claims: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of the claims of a page, with `p_holm` in their evidence and `verdict_holm`.

    What is corrected is twice the smaller of the two one-sided p-values of a claim, so that errors in both directions
    count. A verdict that does not come from a test (a counterexample, every record) needs no correction.
    """
    records = list(claims)
    corrected = holm([_two_sided(claim["evidence"]) for claim in records])
    for claim, p in zip(records, corrected, strict=True):
        evidence = claim["evidence"]
        evidence["p_holm"] = p and float(f"{p:.6g}")
        tested = evidence["p_value" if claim["verdict"] == "holds" else "p_opposite"] is not None
        kept = not tested or (p is not None and p < ALPHA)
        claim["verdict_holm"] = claim["verdict"] if kept else "undecided"
    return records


def seeds_to_settle(p: float | None, seeds: int) -> int | None:
    """Seeds with which a test would be significant in `POWER` of all trials, if the effect seen is the true one.

    A normal approximation for the order of magnitude: the quantile of the one-sided p-value grows with the root of the
    number of runs. None: no effect was seen, or the test is significant already and another contradicts it.
    """
    if not p or not ALPHA <= p < 0.5:
        return None
    quantile = NormalDist().inv_cdf
    return ceil(seeds * ((quantile(1 - ALPHA) + quantile(POWER)) / quantile(1 - p)) ** 2)


def _two_sided(evidence: dict[str, Any]) -> float | None:
    p: float | None = evidence["p_value"]
    opposite: float | None = evidence["p_opposite"]
    return p if p is None or opposite is None else min(1.0, 2 * min(p, opposite))
