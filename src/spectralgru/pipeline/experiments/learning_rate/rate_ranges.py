"""Results of a learning-rate sweep: success and metric at every rate, best rate and range of every method."""

import math
import statistics
from collections.abc import Mapping, Sequence

import pandas as pd

from spectralgru.pipeline.results.outcome import succeeded
from spectralgru.records import Run
from spectralgru.setting import Setting

COLUMNS = ("setting", "rate", "runs", "finished", "overflowed", "valid", "test")
RANGES = (
    "setting",
    "best_rate",  # of the lowest validation metric, among rates at which every run finishes
    "valid",
    "test",
    "lowest",  # of the working rates around the best, without a gap
    "highest",
    "factors_of_two",  # log2(highest / lowest); empty where no rate works
    "open_below",  # the lowest rate swept works: the range may extend further
    "open_above",
    "highest_finishing",  # the highest rate at which every run finishes
)


def tabulate(runs: Mapping[float, Sequence[Run]], settings: Sequence[Setting]) -> pd.DataFrame:
    """One row (`COLUMNS`) for each setting and rate; `valid` and `test` are means over the finished runs.

    `overflowed` counts runs that diverged with a number that is not finite. The other runs that did not finish ended no
    better than the corpus' frequencies.
    """
    rows = []
    for setting in (setting.name for setting in settings):
        for rate, of_rate in runs.items():
            of_setting = [run for run in of_rate if run.setting == setting]
            good = [run.best for run in of_setting if succeeded(run)]
            overflowed = sum("not finite" in (run.diverged or {}).get("reason", "") for run in of_setting)
            valid, test = (
                statistics.fmean(best[split] for best in good) if good else None
                for split in ("valid", "test")
            )
            rows.append((setting, rate, len(of_setting), len(good), overflowed, valid, test))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"valid": float, "test": float})


def mark_working(sweep: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """`sweep` with a column `works`: every run finished, and `valid` is at most 1 + tolerance times the best of all."""
    sound = sweep["finished"] == sweep["runs"]
    best = sweep.loc[sound, "valid"].min()
    return sweep.assign(works=sound & (sweep["valid"] <= (1 + tolerance) * best))


def ranges(sweep: pd.DataFrame) -> pd.DataFrame:
    """One row (`RANGES`) for each setting, from the result of `mark_working`."""
    return pd.DataFrame(
        [_range(str(setting), rows.sort_values("rate")) for setting, rows in sweep.groupby("setting", sort=False)],
        columns=list(RANGES),
    )  # fmt: skip


def _range(setting: str, rows: pd.DataFrame) -> dict[str, object]:
    rows = rows.reset_index(drop=True)
    row: dict[str, object] = dict.fromkeys(RANGES) | {"setting": setting}
    sound = rows[rows["finished"] == rows["runs"]]
    if sound.empty:
        return row
    best = int(sound["valid"].to_numpy().argmin())
    best = list(rows["rate"]).index(sound["rate"].iloc[best])
    row |= {"best_rate": rows["rate"][best], "valid": rows["valid"][best], "test": rows["test"][best]}
    row["highest_finishing"] = sound["rate"].max()
    if not rows["works"][best]:
        return row
    low = high = best
    while low > 0 and rows["works"][low - 1]:
        low -= 1
    while high + 1 < len(rows) and rows["works"][high + 1]:
        high += 1
    lowest, highest = rows["rate"][low], rows["rate"][high]
    return row | {
        "lowest": lowest,
        "highest": highest,
        "factors_of_two": round(math.log2(highest / lowest), 2),
        "open_below": low == 0,
        "open_above": high == len(rows) - 1,
    }
