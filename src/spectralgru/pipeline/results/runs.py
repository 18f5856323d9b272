"""A table with one line per run, from which others can be checked or made."""

from pathlib import Path

import pandas as pd

from spectralgru.files import write_text
from spectralgru.pipeline.results.load import Campaign, RunFiles
from spectralgru.pipeline.results.outcome import outcome

# Column of a trace -> the largest value in it. sigma_1(W_hh), |lambda_1(J)|, norm before clipping.
LARGEST = {"sigma_max": "sigma_max", "spectral_radius": "spectral_radius_max", "grad_norm": "grad_norm_max"}


def write_runs(campaign: Campaign) -> list[Path]:
    """Write `tables/runs.csv`, one row for each run.

    Columns: which run, how it ended, metric (perplexity or nats per step) at its best epoch, largest values of its
    trace, key and commit. Returns the path.
    """
    rows = [
        _row(item) for corpus, runs in campaign.corpora.items() for items in runs.values() for item in items
    ]
    path = campaign.root / "tables" / "runs.csv"
    write_text(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    return [path]


def _row(item: RunFiles) -> dict[str, object]:
    run = item.run
    best, diverged = run.best, run.diverged or {}
    return {
        "corpus": run.corpus,
        "method": run.method,
        "value": run.value,
        "seed": run.seed,
        "status": run.status,
        "outcome": outcome(run),
        "metric": run.metric,
        "best_epoch": f"{best['epoch']:.0f}" if best else "",
        "valid": best.get("valid"),
        "test": best.get("test"),
        **{name: f"{item.steps[column].max():.7g}" for column, name in LARGEST.items()},
        "diverged_epoch": diverged.get("epoch"),
        "diverged_step": diverged.get("step"),
        "reason": diverged.get("reason"),
        "wall_seconds": round(run.wall_seconds, 1),
        "git_commit": run.git_commit,
        "data_sha256": run.data_sha256,
        "key": run.key,
    }
