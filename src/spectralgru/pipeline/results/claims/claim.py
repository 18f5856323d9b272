"""A claim of the paper, checked on run records, and the one rule for all verdicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

import numpy as np
from scipy.stats import permutation_test, rankdata, wilcoxon

from spectralgru.pipeline.results.claims.levels import ALPHA, seeds_to_settle
from spectralgru.pipeline.results.load import RunFiles, Runs
from spectralgru.pipeline.results.names import counted
from spectralgru.records import run_path

Verdict = Literal["holds", "fails", "undecided"]
# Number of values up to which scipy tries all choices of signs: 2 ** 13 is less than its 9,999 resamples.
MOST_TRIED = 13


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, its verdict on one corpus, and why."""

    id: str
    statement: str
    provenance: str  # mark of the statement, as in paper.yaml
    corpus: str
    verdict: Verdict
    summary: str  # the finding, in a sentence with numbers
    test: str = ""
    statistic: float | None = None
    p_value: float | None = None  # of the test for the claim
    p_opposite: float | None = None  # of the test for its opposite
    opposite: str = ""  # name of that test, if it differs
    seeds_needed: int | None = None  # to settle it; None: computed from the p-values
    by_seeds: bool = True  # whether more seeds would settle it
    n: int = 0  # number of units in the test: runs, settings or intervals; the summary says which
    numbers: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    scale: str = ""
    layers: int | None = None
    runs: tuple[str, ...] = ()  # run directories, relative to results/<scale>

    def record(self) -> dict[str, Any]:
        """The claim as in claims.json."""
        seeds = len({run.rpartition("/")[2] for run in self.runs})
        tested = [p for p in (self.p_value, self.p_opposite) if p is not None]
        undecided = self.verdict == "undecided" and self.by_seeds and bool(tested)
        evidence = {
            "summary": self.summary,
            "test": self.test,
            "statistic": self.statistic,
            "p_value": self.p_value,
            "p_opposite": self.p_opposite,
            "opposite": self.opposite,
            "seeds": seeds,
            "seeds_needed": (self.seeds_needed or seeds_to_settle(min(tested), seeds)) if undecided else None,
            "n": self.n,
            "numbers": self.numbers,
            "notes": list(self.notes),
            "runs": list(self.runs),
        }
        heads = ("id", "statement", "provenance", "corpus", "scale", "layers", "verdict")
        record: dict[str, Any] = _plain(
            {name: getattr(self, name) for name in heads} | {"evidence": evidence}
        )
        return record


def decide(p_for: float, p_against: float) -> Verdict:
    """The verdict from two one-sided p-values: for the claim and for its opposite."""
    if p_for < ALPHA:
        return "holds"
    return "fails" if p_against < ALPHA else "undecided"


def signed_rank(values: Sequence[float]) -> tuple[Any, Any]:
    """Wilcoxon's signed-rank test as in scipy, `greater` and `less`: results with `statistic` and `pvalue`.

    For few values with ties or zeros, scipy tries all choices of signs one by one, which takes a second; here they are
    tried at once.
    """
    given = np.asarray(values)
    sizes = np.abs(given[given != 0])
    if len(given) > MOST_TRIED or len(np.unique(sizes)) == len(given):
        more, less = (wilcoxon(given, alternative=side) for side in ("greater", "less"))
        return more, less
    ranks = np.zeros(len(given))
    ranks[given != 0] = rankdata(sizes)

    def positive(signed: Any, axis: int) -> Any:
        return np.sum(ranks * (signed > 0), axis=axis)

    more, less = (
        permutation_test((given,), positive, permutation_type="samples", vectorized=True, alternative=side)
        for side in ("greater", "less")
    )
    return more, less


def described(items: Iterable[RunFiles]) -> str:
    """The runs in words: `15 constrained runs of chorales (quick scale, 1 GRU layer)`."""
    found = [item.run for item in items]
    if not found:
        return "0 runs"
    method = {"constraint": "constrained", "clipping": "clipped", "none": "unconstrained"}[found[0].method]
    network = counted(found[0].settings["model"]["num_layers"], "GRU layer")
    return f"{len(found)} {method} runs of {found[0].corpus} ({found[0].scale} scale, {network})"


def percent(share: float) -> str:
    """`82 %`."""
    return f"{100 * share:.0f} %"


def of_method(runs: Runs, *methods: str) -> list[RunFiles]:
    """The runs of some methods, in order."""
    return [item for setting, items in runs.items() if setting.method in methods for item in items]


def paths(items: Iterable[RunFiles]) -> tuple[str, ...]:
    """Run directories relative to results/<scale>."""
    runs = (item.run for item in items)
    return tuple(run_path("", r.corpus, r.method, r.value, r.seed).as_posix() for r in runs)


def _plain(value: Any) -> Any:
    """A value for JSON: numpy's numbers become Python's with six digits, and None if not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, str | bool | int) or value is None:
        return value
    number = float(value)
    return float(f"{number:.6g}") if isfinite(number) else None
