"""Claims about accuracy: which method, and which delta, models the data best."""

from itertools import pairwise
from typing import Any

import numpy as np
from scipy.stats import permutation_test, ttest_ind

from spectralgru.pipeline.results.claims.claim import Claim, decide, paths
from spectralgru.pipeline.results.claims.levels import ALPHA, holm
from spectralgru.pipeline.results.load import RunFiles, Runs
from spectralgru.pipeline.results.names import title
from spectralgru.pipeline.results.outcome import succeeded
from spectralgru.pipeline.results.paper import PaperTable
from spectralgru.setting import Setting, number

UNITS = {"perplexity": "perplexity", "nll": "nats per time step"}
RESAMPLES = 9999


def beats_clipping(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """The constraint that is best on validation beats the clipping that is best on validation, on the test set."""
    claim: dict[str, Any] = {
        "id": "constraint-beats-clipping",
        "statement": "The constraint improves modelling accuracy: the best delta beats the best clipping threshold.",
        "provenance": "S",
        "corpus": corpus,
        "test": "Welch's t test over seeds, test metric, best delta against best threshold",
    }
    best = {method: _best(runs, method) for method in ("constraint", "clipping")}
    ours, theirs = best["constraint"], best["clipping"]
    if ours is None or theirs is None:
        lacking = "constraint" if ours is None else "clipping"
        text = f"No {lacking} setting has two successful runs to compare."
        return Claim(**claim, verdict="undecided", summary=text)
    a, b = (_tests(runs[setting]) for setting in (ours, theirs))
    lower, higher = (ttest_ind(a, b, equal_var=False, alternative=side) for side in ("less", "greater"))
    both, wider = (ttest_ind(a, b, equal_var=False).confidence_interval(level) for level in (0.9, 0.95))
    unit = UNITS[runs[ours][0].run.metric]
    return Claim(
        **claim,
        verdict=decide(lower.pvalue, higher.pvalue),
        summary=f"Best on validation, then tested: {title(ours)} has {_spread(a)}, {title(theirs)} has {_spread(b)} "
        f"{unit} (lower is better; difference {a.mean() - b.mean():+.3g}, 90 % interval {both.low:+.3g} to "
        f"{both.high:+.3g}).",
        statistic=lower.statistic,
        p_value=lower.pvalue,
        p_opposite=higher.pvalue,
        n=len(a) + len(b),
        numbers={
            "constraint": _numbers(ours, runs[ours]),
            "clipping": _numbers(theirs, runs[theirs]),
            "difference": a.mean() - b.mean(),
            "difference_90": [both.low, both.high],
            "difference_95": [wider.low, wider.high],
        },
        notes=(
            "Each method's setting is chosen by its mean on validation over successful seeds, so that the test set has "
            "no part in the choice. The p-value does not account for the choice among settings; a method with more "
            "settings to choose from has a slight advantage. The 90 % interval excludes zero exactly when one of the "
            "two one-sided tests is significant. Only successful runs count, as in the paper's tables.",
        ),
        runs=paths(runs[ours] + runs[theirs]),
    )


def smaller_delta(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """The test metric rises with delta; one significant reversal between neighbours refutes it."""
    chosen = sorted((s for s in runs if s.method == "constraint"), key=lambda s: s.value or 0)
    groups = {setting: _tests(runs[setting]) for setting in chosen if len(_tests(runs[setting]))}
    claim: dict[str, Any] = {
        "id": "smaller-delta-is-more-accurate",
        "statement": "The smaller delta, the more accurate the model.",
        "provenance": "U",
        "corpus": corpus,
        "test": f"Jonckheere-Terpstra trend over deltas, test metric, {RESAMPLES:,} permutations",
    }
    if len(groups) < 2 or max(map(len, groups.values())) < 2:
        text = "A trend takes at least two deltas with successful runs, one of them with two."
        return Claim(**claim, verdict="undecided", summary=text)
    values = np.concatenate(list(groups.values()))
    deltas = np.concatenate([np.full(len(v), s.value) for s, v in groups.items()])
    rises, falls = (_trend(deltas, values, side) for side in ("greater", "less"))
    steps = _neighbours(groups)
    reversed_ = [s for s in steps if s["p_reversed_holm"] is not None and s["p_reversed_holm"] < ALPHA]
    means = ", ".join(f"{v.mean():.4g} ({title(s)})" for s, v in groups.items())
    ordered = sum(step["difference"] < 0 for step in steps)
    told = f" {ordered} of {len(steps)} neighbouring pairs are in the claimed order"
    told += f"; significantly reversed: {', '.join(s['deltas'] for s in reversed_)}." if reversed_ else "."
    return Claim(
        **claim,
        verdict="fails" if reversed_ else decide(rises.pvalue, falls.pvalue),
        summary=f"Mean test {UNITS[runs[chosen[0]][0].run.metric]} by delta: {means}.{told}",
        statistic=rises.statistic,
        p_value=rises.pvalue,
        p_opposite=min(s["p_reversed_holm"] for s in reversed_) if reversed_ else falls.pvalue,
        opposite="Welch's test of neighbours, with Holm's correction" if reversed_ else "",
        n=len(values),
        numbers={"neighbours": steps, "p_reversed": falls.pvalue},
        notes=(
            "The statistic is the number of pairs of runs in the claimed order, minus that in the other order. "
            "Neighbouring deltas are compared by Welch's test with Holm's correction; one significant reversal refutes "
            "the claim.",
        ),
        runs=paths(item for setting in groups for item in runs[setting]),
    )


def _trend(deltas: Any, values: Any, side: str) -> Any:
    """Permutation test of the Jonckheere-Terpstra statistic."""
    order = np.sign(deltas[:, None] - deltas[None, :])

    def statistic(v: Any, axis: int = -1) -> Any:
        return (np.sign(v[..., :, None] - v[..., None, :]) * order).sum((-1, -2)) / 2

    random = np.random.default_rng(0)
    options = {"permutation_type": "pairings", "vectorized": True, "batch": 500}
    return permutation_test(
        (values,), statistic, n_resamples=RESAMPLES, alternative=side, rng=random, **options
    )


def _neighbours(groups: dict[Setting, Any]) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = []
    for (small, a), (large, b) in pairwise(groups.items()):
        enough = min(len(a), len(b)) > 1
        claimed, against = (
            float(ttest_ind(a, b, equal_var=False, alternative=side).pvalue) if enough else None
            for side in ("less", "greater")
        )
        difference = a.mean() - b.mean()
        pairs.append(
            {
                "deltas": f"{number(small.value or 0)} against {number(large.value or 0)}",
                "difference": difference,
                "p_claimed": claimed,
                "p_reversed": against,
            }
        )
    for name in ("claimed", "reversed"):
        corrected = holm([step[f"p_{name}"] for step in pairs])
        for step, p in zip(pairs, corrected, strict=True):
            step[f"p_{name}_holm"] = p
    return pairs


def _best(runs: Runs, method: str) -> Setting | None:
    """The setting with the lowest mean validation metric among those with two successful runs."""
    means = {
        setting: np.mean([item.run.best["valid"] for item in good])
        for setting, items in runs.items()
        if setting.method == method and len(good := _good(items)) > 1
    }
    return min(means, key=lambda setting: means[setting]) if means else None


def _good(items: list[RunFiles]) -> list[RunFiles]:
    return [item for item in items if succeeded(item.run)]


def _tests(items: list[RunFiles]) -> Any:
    return np.array([item.run.best["test"] for item in _good(items)])


def _numbers(setting: Setting, items: list[RunFiles]) -> dict[str, Any]:
    tests = _tests(items)
    return {
        "setting": items[0].run.setting,
        "validation_mean": np.mean([item.run.best["valid"] for item in _good(items)]),
        "test_mean": tests.mean(),
        "test_sd": tests.std(ddof=1),
        "successful": len(tests),
        "runs": len(items),
    }


def _spread(values: Any) -> str:
    return f"{values.mean():.4g} ± {values.std(ddof=1):.2g}"
