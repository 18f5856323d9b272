"""Claims about what every record of a constrained run must show: the bound on sigma_1, the stable origin."""

import numpy as np

from spectralgru.results.claims.claim import Claim, Runs, of_method, paths
from spectralgru.results.paper import PaperTable

ROUNDING = 1e-6  # relative, of float32


def sigma_within_bound(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """sigma_1(W_hh) <= 2 - delta in every record."""
    return _every_record(
        corpus,
        runs,
        id="singular-values-within-bound",
        statement="Under the constraint sigma_1(W_hh) <= 2 - delta after every step.",
        column="sigma_max",
        unstable=False,
        note="Each record is the largest value of its interval, and every step was looked at; "
        f"{ROUNDING:g} (relative) is allowed for rounding.",
    )


def origin_stays_stable(corpus: str, runs: Runs, paper: PaperTable | None) -> Claim:
    """|lambda_1(J)| < 1 in every record."""
    return _every_record(
        corpus,
        runs,
        id="origin-stays-stable",
        statement="Under the constraint the spectral radius of the Jacobian at the origin stays below 1.",
        column="spectral_radius",
        unstable=True,
        note="The spectral radius was measured at the last step of each interval; that it is below 1 in between "
        "follows from the bound on sigma_1.",
    )


def _every_record(
    corpus: str, runs: Runs, *, id: str, statement: str, column: str, unstable: bool, note: str
) -> Claim:
    mine = of_method(runs, "constraint")
    deltas = {}
    n = broken = 0
    for setting, items in runs.items():
        if setting[0] != "constraint":
            continue
        values = np.concatenate([item.steps[column].to_numpy(dtype=float) for item in items])
        bound = 2 - (setting[1] or 0)
        # A value that is not a number is not within bounds.
        within = values < 1 if unstable else values <= bound * (1 + ROUNDING)
        n, broken = n + len(values), broken + int((~within).sum())
        largest = float(values.max()) if len(values) else None
        deltas[f"{setting[1]:g}"] = {
            "largest": largest,
            "bound": 1 if unstable else bound,
            "records": len(values),
        }
    what = "a spectral radius of 1 or more" if unstable else "sigma_1 above 2 - delta"
    return Claim(
        id=id,
        statement=statement,
        provenance="S",
        corpus=corpus,
        verdict="undecided" if not n else "fails" if broken else "holds",
        summary=f"{broken:,} of {n:,} records of {len(mine)} constrained runs show {what}.",
        test="comparison of every record",
        statistic=broken,
        n=n,
        numbers={"deltas": deltas},
        notes=(note,),
        runs=paths(mine),
    )
