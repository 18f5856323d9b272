"""The first screen: three questions a reader has, answered by the claims, and the best setting of each method."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from spectralgru.pipeline.results.claims.marks import Record
from spectralgru.pipeline.results.names import METHOD_TITLES, title
from spectralgru.setting import Setting

STABLE, ACCURATE = "constraint-never-diverges", "constraint-beats-clipping"
WORDS = {"holds": "Yes", "fails": "No", "undecided": "Not decided"}


@dataclass(frozen=True)
class Best:
    """A line of the small table: how often a method succeeds, and its best setting by validation."""

    corpus: str
    method: str
    succeeded: str
    setting: str
    test: str


def questions(claims: Sequence[Record], every: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """Each question with the claims that answer it; `every`: also those of readings and kept campaigns."""
    stable = [claim for claim in claims if claim["id"] == STABLE and claim["layers"] == 1]
    accurate = [claim for claim in claims if claim["id"] == ACCURATE]
    deep = [claim for claim in every if claim["id"] == STABLE and claim["layers"] != 1]
    return [
        ("Does the constraint keep training stable, with one layer?", stable),
        ("Are its models more accurate than those of clipping?", accurate),
        ("And with several layers?", deep),
    ]


def best_of_each(corpus: str, numbers: pd.DataFrame) -> list[Best]:
    """A line for each method of a corpus' table (`tables.make_table`)."""
    ours = numbers[numbers["source"] == "ours"]
    valid = ours[ours["quantity"].str.startswith("validation")].set_index("setting")
    test = ours[ours["quantity"].str.startswith("test")].set_index("setting")
    lines = []
    for method in METHOD_TITLES:
        of_method = valid[[Setting.parse(name).method == method for name in valid.index]]
        if of_method.empty:
            continue
        good = (of_method["success"] * of_method["n"]).round().astype(int)
        succeeded = f"{good.sum()} of {of_method['n'].sum()}"
        known = of_method["mean"].dropna()
        setting, shown = "n/a", "n/a"
        if len(known):
            row = test.loc[name := str(known.idxmin())]
            setting = f"{title(Setting.parse(name))} ({good[name]} of {of_method['n'][name]})"
            shown = f"{row['mean']:.4g}" + ("" if pd.isna(row["sd"]) else f" ± {row['sd']:.2g}")
        lines.append(Best(corpus, METHOD_TITLES[method], succeeded, setting, shown))
    return lines
