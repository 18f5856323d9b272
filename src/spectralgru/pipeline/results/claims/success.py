"""Claims about success and failure of training."""

from math import ceil, log

from scipy.stats import binomtest, fisher_exact

from spectralgru.pipeline.results.claims.claim import Claim, decide, described, of_method, paths, percent
from spectralgru.pipeline.results.claims.levels import ALPHA
from spectralgru.pipeline.results.load import RunFiles, Runs
from spectralgru.pipeline.results.outcome import failures
from spectralgru.pipeline.results.paper import PaperTable
from spectralgru.setting import number

SURE = 0.8  # "never diverges" holds only if a success rate above this is certain


def never_diverges(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """No constrained run diverges; a single one that does refutes the claim."""
    constrained = of_method(runs, "constraint")
    n, failed = len(constrained), _failed(constrained)
    rate = binomtest(n - failed, n, SURE, alternative="greater") if n else None
    bound = _sure_rate(n - failed, n)
    deltas = {setting: items for setting, items in runs.items() if setting.method == "constraint"}
    which = described(constrained)
    seen = (
        f"Of {which} {_told(constrained)}" if failed else f"No divergence seen in {which}: 0 lost, 0 broken"
    )
    return Claim(
        id="constraint-never-diverges",
        statement="Training under the constraint does not diverge, at any delta.",
        provenance="U",
        corpus=corpus,
        verdict="fails" if failed else decide(rate.pvalue, 1.0) if rate else "undecided",
        summary=f"{seen}; with 95 % confidence, at least {percent(bound)} of such runs succeed."
        if n
        else "There is no constrained run.",
        test=f"exact binomial test of a success rate above {percent(SURE)}",
        statistic=(n - failed) / n if n else None,
        p_value=rate.pvalue if rate else None,
        seeds_needed=ceil(log(ALPHA) / log(SURE) / len(deltas)) if n else None,
        n=n,
        numbers={
            "success_rate_lower_bound": bound,
            "deltas": {
                number(setting.value or 0): {
                    **_counts(items),
                    "success_rate_lower_bound": _sure_rate(len(items) - _failed(items), len(items)),
                }
                for setting, items in deltas.items()
            },
        },
        notes=(
            "No number of runs can show that training never diverges: the claim counts as holding if no run was lost "
            f"or broke and a success rate above {percent(SURE)} is certain. The bound (Clopper-Pearson, one-sided) is "
            "for all deltas together; the bound of each delta rests on its own runs alone.",
        ),
        runs=paths(constrained),
    )


def prevents_explosion(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """Fewer constrained than unconstrained runs diverge."""
    constrained, others = of_method(runs, "constraint"), of_method(runs, "none")
    counts = [[_failed(items), len(items) - _failed(items)] for items in (others, constrained)]
    more, fewer = (fisher_exact(counts, alternative=side) for side in ("greater", "less"))
    return Claim(
        id="constraint-prevents-explosion",
        statement="The constraint prevents the exploding gradients that training without it meets.",
        provenance="S",
        corpus=corpus,
        verdict=decide(more.pvalue, fewer.pvalue) if constrained and others else "undecided",
        summary=f"Of {len(others)} unconstrained runs {_told(others)}; of {len(constrained)} constrained ones "
        f"{_told(constrained)}.",
        test="Fisher's exact test of failure, unconstrained against constrained",
        statistic=more.statistic,
        p_value=more.pvalue if constrained and others else None,
        p_opposite=fewer.pvalue if constrained and others else None,
        n=len(constrained) + len(others),
        numbers={"unconstrained": counts[0], "constrained": counts[1], "columns": ["failed", "succeeded"]},
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
    large = {
        s: items for s, items in runs.items() if s.method == "clipping" and (s.value or 0) >= min(failing)
    }
    clipped = of_method(large, "clipping")
    n, failed = len(clipped), _failed(clipped)
    most, least = (
        binomtest(failed, n, 0.5, alternative=side).pvalue if n else 1.0 for side in ("greater", "less")
    )
    return Claim(
        id="clipping-fails-at-large-thresholds",
        statement=f"Gradient clipping fails at large thresholds ({number(min(failing))} and more).",
        provenance="U",
        corpus=corpus,
        verdict=decide(most, least),
        summary=f"Of {n} runs clipped at {number(min(failing))} or more {_told(clipped)}.",
        test="exact binomial test of a failure rate above 1/2",
        statistic=failed / n if n else None,
        p_value=most if n else None,
        p_opposite=least if n else None,
        n=n,
        numbers={
            "thresholds": {
                number(setting.value or 0): {
                    **_counts(items),
                    "paper_success_rate": shares.get(items[0].run.setting),
                }
                for setting, items in large.items()
            }
        },
        notes=("A threshold is large if most of the paper's own trainings failed at it.",),
        runs=paths(clipped),
    )


def _counts(items: list[RunFiles]) -> dict[str, int]:
    lost, broken = failures(item.run for item in items)
    return {"runs": len(items), "diverged": lost + broken, "lost": lost, "broken": broken}


def _failed(items: list[RunFiles]) -> int:
    return sum(failures(item.run for item in items))


def _told(items: list[RunFiles]) -> str:
    lost, broken = failures(item.run for item in items)
    return f"{lost} {'was' if lost == 1 else 'were'} lost and {broken} broke"


def _sure_rate(good: int, n: int) -> float:
    if not n:
        return 0.0
    low: float = binomtest(good, n, alternative="greater").proportion_ci(0.95, "exact").low
    return low
