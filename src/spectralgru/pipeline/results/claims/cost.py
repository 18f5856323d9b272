"""The claim about cost: seconds per epoch under the constraint and with clipping."""

from typing import Any

import numpy as np
from scipy.stats import t as student

from spectralgru.pipeline.results.claims.claim import Claim, decide, of_method, paths, percent
from spectralgru.pipeline.results.load import RunFiles, Runs
from spectralgru.pipeline.results.paper import PaperTable
from spectralgru.setting import number

MARGIN = 0.05  # allowed by "no more", since timings on a busy machine are no more precise
# Clipping costs the same at every threshold; if settings differ by more than this, their timing was disturbed.
DISTURBED = 0.15


def costs_no_more(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """Seconds per epoch, one number for each setting, compared as a ratio."""
    timed = of_method(runs, "constraint", "clipping")
    seconds = {setting: _seconds(items) for setting, items in runs.items() if setting.method != "none"}
    ours, theirs = (
        np.array([s for setting, s in seconds.items() if setting.method == method and s])
        for method in ("constraint", "clipping")
    )
    claim: dict[str, Any] = {
        "id": "constraint-costs-no-more",
        "statement": "The constraint costs no more than clipping.",
        "provenance": "U",
        "corpus": corpus,
        "test": f"Welch's t test of log seconds per epoch over settings, margin {percent(MARGIN)}",
        "n": len(ours) + len(theirs),
        "by_seeds": False,
        "numbers": {
            "seconds_per_epoch": {f"{m} {number(v)}": s for (m, v), s in seconds.items() if v is not None}
        },
        "notes": (
            "Seconds of training and validation per epoch: the median over the epochs of all runs of a setting, which "
            "are trained together. The machine was shared with other programs and with the training of other settings; "
            "a benchmark on an idle machine (`make bench`) is more precise.",
        ),
        "runs": paths(timed),
    }
    if reason := _not_comparable(timed, ours, theirs):
        return Claim(**claim, verdict="undecided", summary=reason)
    a, b = np.log(ours), np.log(theirs)
    variances = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    error = float(np.sqrt(sum(variances)))
    freedom = error**4 / (variances[0] ** 2 / (len(a) - 1) + variances[1] ** 2 / (len(b) - 1))
    difference = float(a.mean() - b.mean())
    statistic = (difference - np.log1p(MARGIN)) / error
    low, high = np.exp(difference + student.ppf([0.05, 0.95], freedom) * error)
    wider = np.exp(difference + student.ppf([0.025, 0.975], freedom) * error)
    claim["numbers"] |= {"ratio": np.exp(difference), "ratio_90": [low, high], "ratio_95": wider.tolist()}
    return Claim(
        **claim,
        verdict=decide(student.cdf(statistic, freedom), student.sf(statistic, freedom)),
        summary=f"An epoch under the constraint takes {np.exp(difference):.2f} times as long as under clipping "
        f"(90 % interval {low:.2f} to {high:.2f}; {np.exp(a.mean()):.3g} s against {np.exp(b.mean()):.3g} s).",
        statistic=statistic,
        p_value=student.cdf(statistic, freedom),
        p_opposite=student.sf(statistic, freedom),
    )


def _not_comparable(timed: list[RunFiles], ours: Any, theirs: Any) -> str:
    """Why the timings cannot be compared; empty if they can."""
    if min(len(ours), len(theirs)) < 2:
        return "A comparison takes at least two timed settings of each method."
    places = {(i.run.host, i.run.device, i.run.threads) for i in timed}
    if len(places) > 1:
        return f"The runs were timed in {len(places)} different places (host, device, threads)."
    seeds = len({item.run.seed for item in timed})
    if any(item.run.replicas > seeds for item in timed):
        return "Runs of several settings were trained together and share their time."
    spread = theirs.max() / theirs.min() - 1
    if spread > DISTURBED:
        return (
            f"Timings are too uneven: clipping, which costs the same at every threshold, differs by {percent(spread)} "
            "between thresholds; the machine had other work."
        )
    if np.ptp(ours) == np.ptp(theirs) == 0:
        return "The timings do not vary at all, so that their error cannot be estimated."
    return ""


def _seconds(items: list[RunFiles]) -> float | None:
    """Median over the epochs in which every run of the setting was still training."""
    epochs = min(len(item.history) for item in items)
    times = [item.history["seconds"].to_numpy()[:epochs] for item in items]
    return float(np.median(np.concatenate(times))) if epochs else None
