"""Quick scale with float32 and with bfloat16 products, setting by setting: Welch's test over seeds, Holm's correction.

python reproduction/2026-11-28-precision/compare.py > reproduction/2026-11-28-precision/comparison.csv
"""

import sys
from pathlib import Path

import pandas as pd
from scipy.stats import ttest_ind

from spectralgru.pipeline.results.claims.levels import holm

HERE = Path(__file__).parent
RUNS = {"float32": HERE.parent / "2026-11-28-quick" / "runs.csv", "bfloat16": HERE / "bfloat16" / "runs.csv"}


def main() -> None:
    """Print a line for each corpus and setting."""
    each = {name: pd.read_csv(path) for name, path in RUNS.items()}
    rows = []
    settings = ["corpus", "method", "value"]
    for (corpus, method, value), ours in each["float32"].groupby(settings, dropna=False, sort=False):
        other = each["bfloat16"]
        same = other.value.isna() if pd.isna(value) else other.value == value
        theirs = other[(other.corpus == corpus) & (other.method == method) & same]
        a, b = (runs[runs.outcome == "succeeded"].test for runs in (ours, theirs))
        p = ttest_ind(a, b, equal_var=False).pvalue if min(len(a), len(b)) > 1 else None
        rows.append([corpus, method, value, len(a), len(b), a.mean(), a.std(), b.mean(), b.std(), p])
    columns = ["corpus", "method", "value", "successes_float32", "successes_bfloat16"]
    columns += ["test_float32", "sd_float32", "test_bfloat16", "sd_bfloat16", "p_value"]
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = holm([None if pd.isna(p) else p for p in table.p_value])
    table.to_csv(sys.stdout, index=False, float_format="%.4g")


main()
