"""The histories of a campaign's runs in one table: python scripts/history.py results/paper > history.csv."""

import sys
from pathlib import Path

import pandas as pd

runs = Path(sys.argv[1]) / "runs"
columns = ["epoch", "learning_rate", "valid_metric", "grad_norm_max", "spectral_radius"]
tables = []
for file in sorted(runs.glob("*/*/seed-*/history.csv")):
    corpus, setting, seed, _ = file.relative_to(runs).parts
    run = {"corpus": corpus, "setting": setting, "seed": int(seed.removeprefix("seed-"))}
    tables.append(pd.read_csv(file)[columns].assign(**run)[[*run, *columns]])
pd.concat(tables).to_csv(sys.stdout, index=False, float_format="%.9g")
