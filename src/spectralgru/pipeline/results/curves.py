"""Learning curves of all settings in one small table, for `dvc plots` and whoever else draws them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from spectralgru.files import write_text
from spectralgru.pipeline.results.load import load_runs
from spectralgru.records import Setting


def write_curves(
    root: Path, corpora: Mapping[str, Sequence[Setting]], seeds: Sequence[int], scale: str
) -> list[Path]:
    """Write `root/tables/curves.csv`, one row per corpus, setting and epoch, over the seeds that reached the epoch.

    Columns: mean of the validation metric, largest gradient norm, largest spectral radius |lambda_1(J)|, number of
    seeds. Returns the path. Raises InputError naming the first run that is missing.
    """
    tables = [
        item.history.assign(corpus=corpus, setting=item.run.setting)
        for corpus, settings in corpora.items()
        for item in load_runs(Path(root), corpus, settings, seeds, scale)
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
    path = Path(root) / "tables" / "curves.csv"
    write_text(path, curves.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    return [path]
