"""Claims about every finite record of a constrained run: the bound on sigma_1, and the stable origin."""

import numpy as np

from spectralgru.pipeline.results.claims.claim import Claim, of_method, paths
from spectralgru.pipeline.results.load import Runs
from spectralgru.pipeline.results.paper import PaperTable
from spectralgru.setting import number

ROUNDING = 1e-6  # relative, of float32
NOT_FINITE = (
    "A record is not finite if the run overflowed in its interval; it says nothing about the bound. Whether "
    "constrained training diverges is a separate claim."
)


def sigma_within_bound(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """sigma_1(W_hh) <= 2 - delta in every finite record."""
    return _every_record(
        corpus,
        runs,
        id="singular-values-within-bound",
        statement="Under the constraint sigma_1(W_hh) <= 2 - delta after every step.",
        column="sigma_max",
        unstable=False,
        note="Each record is the largest value of its interval, and every step was checked; "
        f"{ROUNDING:g} (relative) is allowed for rounding.",
    )


def origin_stays_stable(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """|lambda_1(J)| < 1 in every finite record."""
    return _every_record(
        corpus,
        runs,
        id="origin-stays-stable",
        statement="Under the constraint the spectral radius of the Jacobian at the origin stays below 1.",
        column="spectral_radius",
        unstable=True,
        note="The spectral radius was measured at the last step of each interval; in between it is below 1 because of "
        "the bound on sigma_1.",
    )


def _every_record(
    corpus: str, runs: Runs, *, id: str, statement: str, column: str, unstable: bool, note: str
) -> Claim:
    constrained = of_method(runs, "constraint")
    deltas = {}
    n = broken = lost = 0
    for setting, items in runs.items():
        if setting.method != "constraint":
            continue
        recorded = np.concatenate([item.steps[column].to_numpy(dtype=float) for item in items])
        values = recorded[np.isfinite(recorded)]
        overflowed = len(recorded) - len(values)
        bound = 2 - (setting.value or 0)
        within = values < 1 if unstable else values <= bound * (1 + ROUNDING)
        n, broken, lost = n + len(values), broken + int((~within).sum()), lost + overflowed
        deltas[number(setting.value or 0)] = {
            "largest": float(values.max()) if len(values) else None,
            "bound": 1 if unstable else bound,
            "records": len(values),
            "not_finite": overflowed,
        }
    what = "a spectral radius of 1 or more" if unstable else "sigma_1 above 2 - delta"
    apart = f" Another {lost:,}, of runs that overflowed, are not finite and do not count." if lost else ""
    return Claim(
        id=id,
        statement=statement,
        provenance="S",
        corpus=corpus,
        verdict="undecided" if not n else "fails" if broken else "holds",
        summary=f"{broken:,} of {n:,} records of {len(constrained)} constrained runs show {what}.{apart}",
        test="comparison of every finite record",
        statistic=broken,
        n=n,
        numbers={"deltas": deltas},
        notes=(note, NOT_FINITE),
        runs=paths(constrained),
    )
