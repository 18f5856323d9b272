"""Learning curves of all settings in one small table, for `dvc plots` and other programs."""

from pathlib import Path

import pandas as pd

from spectralgru.files import write_text
from spectralgru.pipeline.results.load import Campaign


def write_curves(campaign: Campaign) -> list[Path]:
    """Write `tables/curves.csv`, one row per corpus, setting and epoch, over the seeds that reached the epoch.

    Columns: mean of the validation metric, largest gradient norm, largest spectral radius |lambda_1(J)|, number of
    seeds. Returns the path.
    """
    tables = [
        item.history.assign(corpus=corpus, setting=item.run.setting)
        for corpus, runs in campaign.corpora.items()
        for items in runs.values()
        for item in items
    ]
    curves = (
        pd.concat(tables)
        .astype({"epoch": int})
        .groupby(["corpus", "setting", "epoch"], sort=False, as_index=False)
        .agg(
            valid_metric=("valid_metric", "mean"),
            grad_norm_max=("grad_norm_max", "max"),
            spectral_radius=("spectral_radius", "max"),
            seeds=("epoch", "size"),
        )
    )
    path = campaign.root / "tables" / "curves.csv"
    write_text(path, curves.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    return [path]
