"""How a run ended, as tables, claims and MLflow count it."""

from collections.abc import Iterable, Mapping
from typing import Literal

from spectralgru.records import Run

Outcome = Literal["succeeded", "lost", "broken"]
BROKEN = 1.5
RULE = (
    "Lost: overflowed, or ended no better than the corpus' frequencies. Broken: ended at more than "
    f"{BROKEN:g} times its best validation metric."
)


def outcome(run: Run) -> Outcome:
    """The outcome by `RULE`. An old record without its last validation metric cannot be known to be broken."""
    return outcome_of(run.status, run.best, run.final)


def outcome_of(status: str, best: Mapping[str, float], final: Mapping[str, float]) -> Outcome:
    """The same from parts of a record."""
    if status != "finished":
        return "lost"
    return "broken" if final.get("valid", 0) > BROKEN * best.get("valid", 0) else "succeeded"


def succeeded(run: Run) -> bool:
    """Whether the run was neither lost nor broken."""
    return outcome(run) == "succeeded"


def failures(runs: Iterable[Run]) -> tuple[int, int]:
    """How many runs were lost, and how many broken."""
    outcomes = [outcome(run) for run in runs]
    return outcomes.count("lost"), outcomes.count("broken")
