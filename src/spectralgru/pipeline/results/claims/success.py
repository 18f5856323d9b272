"""Claims about success and failure of training."""

from scipy.stats import binomtest, fisher_exact

from spectralgru.pipeline.results.claims.claim import Claim, decide, of_method, paths, percent
from spectralgru.pipeline.results.load import RunFiles, Runs
from spectralgru.pipeline.results.paper import PaperTable
from spectralgru.records import number

SURE = 0.8  # a success rate above it must be certain before "never diverges" is said to hold


def never_diverges(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """No constrained run diverges; one that does is enough to refute it."""
    constrained = of_method(runs, "constraint")
    n, lost = len(constrained), _diverged(constrained)
    rate = binomtest(n - lost, n, SURE, alternative="greater") if n else None
    bound = _sure_rate(n - lost, n)
    return Claim(
        id="constraint-never-diverges",
        statement="Training under the constraint never diverges, at any delta.",
        provenance="U",
        corpus=corpus,
        verdict="fails" if lost else decide(rate.pvalue, 1.0) if rate else "undecided",
        summary=f"{lost} of {n} constrained runs diverged; with 95 % confidence, at least {percent(bound)} succeed."
        if n
        else "There is no constrained run.",
        test=f"exact binomial test of a success rate above {percent(SURE)}",
        statistic=(n - lost) / n if n else None,
        p_value=rate.pvalue if rate else None,
        n=n,
        numbers={
            "success_rate_lower_bound": bound,
            "deltas": {
                number(setting[1] or 0): {
                    "runs": len(items),
                    "diverged": _diverged(items),
                    "success_rate_lower_bound": _sure_rate(len(items) - _diverged(items), len(items)),
                }
                for setting, items in runs.items()
                if setting[0] == "constraint"
            },
        },
        notes=(
            "Never cannot be shown by runs: the claim is said to hold when none diverged and a success rate "
            f"above {percent(SURE)} is certain. The bound (Clopper-Pearson, one-sided) is of all deltas together; "
            "that of each delta alone rests on its own runs only.",
        ),
        runs=paths(constrained),
    )


def prevents_explosion(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """Fewer constrained than unconstrained runs diverge."""
    constrained, others = of_method(runs, "constraint"), of_method(runs, "none")
    counts = [[_diverged(others), len(others) - _diverged(others)]]
    counts.append([_diverged(constrained), len(constrained) - _diverged(constrained)])
    more, fewer = (fisher_exact(counts, alternative=side) for side in ("greater", "less"))
    return Claim(
        id="constraint-prevents-explosion",
        statement="The constraint prevents the exploding gradients that training without it meets.",
        provenance="S",
        corpus=corpus,
        verdict=decide(more.pvalue, fewer.pvalue) if constrained and others else "undecided",
        summary=f"{counts[0][0]} of {len(others)} unconstrained and {counts[1][0]} of {len(constrained)} constrained "
        "runs diverged.",
        test="Fisher's exact test of divergence, unconstrained against constrained",
        statistic=more.statistic,
        p_value=more.pvalue,
        n=len(constrained) + len(others),
        numbers={"unconstrained": counts[0], "constrained": counts[1], "columns": ["diverged", "finished"]},
        runs=paths(constrained + others),
    )


def clipping_fails(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim | None:
    """Most runs clipped at a large threshold diverge; None if the paper does not say so about this corpus."""
    shares = paper.success if paper else {}
    failing = [
        float(name.removeprefix("clipping-"))
        for name, share in shares.items()
        if name.startswith("clipping-") and share < 0.5
    ]
    if not failing:
        return None
    large = {s: items for s, items in runs.items() if s[0] == "clipping" and (s[1] or 0) >= min(failing)}
    clipped = of_method(large, "clipping")
    n, lost = len(clipped), _diverged(clipped)
    most, least = (
        binomtest(lost, n, 0.5, alternative=side).pvalue if n else 1.0 for side in ("greater", "less")
    )
    return Claim(
        id="clipping-fails-at-large-thresholds",
        statement=f"Gradient clipping fails at large thresholds ({number(min(failing))} and more).",
        provenance="U",
        corpus=corpus,
        verdict=decide(most, least),
        summary=f"{lost} of {n} runs clipped at {number(min(failing))} or more diverged.",
        test="exact binomial test of a failure rate above 1/2",
        statistic=lost / n if n else None,
        p_value=most if n else None,
        n=n,
        numbers={
            "thresholds": {
                number(setting[1] or 0): {
                    "runs": len(items),
                    "diverged": _diverged(items),
                    "paper_success_rate": shares.get(items[0].run.setting),
                }
                for setting, items in large.items()
            }
        },
        notes=("Large are the thresholds at which most of the paper's own trainings failed.",),
        runs=paths(clipped),
    )


def _diverged(items: list[RunFiles]) -> int:
    return sum(item.run.status == "diverged" for item in items)


def _sure_rate(good: int, n: int) -> float:
    if not n:
        return 0.0
    low: float = binomtest(good, n, alternative="greater").proportion_ci(0.95, "exact").low
    return low
