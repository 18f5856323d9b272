"""What a run used apart from its settings: its training data, and the machine's time and memory."""

import csv
import json
import math
from pathlib import Path
from typing import Any

from spectralgru.pipeline.tracking.convert import Point
from spectralgru.records import Run

# Columns of Snakemake's benchmark of a training, under the names that MLflow groups as system metrics.
USAGE = {
    "s": "system/wall_seconds",
    "cpu_time": "system/cpu_seconds",
    "mean_load": "system/cpu_percent_mean",
    "max_rss": "system/memory_megabytes_max",
    "io_in": "system/disk_read_megabytes",
    "io_out": "system/disk_write_megabytes",
}
DIGEST_SIZE = 36  # digits of a digest that MLflow keeps


def log_dataset(client: Any, run_id: str, run: Run) -> None:
    """Tell MLflow the training data of a run, if its record names them."""
    from mlflow.exceptions import MlflowException

    if not run.data_sha256:
        return
    used = [dataset(run)]
    try:
        client.log_inputs(run_id, used)
    except MlflowException:  # MLflow looks, then inserts; another process was faster
        client.log_inputs(run_id, used)


def dataset(run: Run) -> Any:
    """The prepared corpus as MLflow's `DatasetInput`; the digest is cut to 36 digits, the source has all."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = {"uri": f"data/prepared/{run.corpus}.npz", "sha256": run.data_sha256}
    part = run.settings.get("data", {})
    digest = run.data_sha256[:DIGEST_SIZE]
    described = Dataset(
        run.corpus, digest, "local", json.dumps(source), profile=json.dumps({"part used": part})
    )
    return DatasetInput(described, [InputTag("mlflow.data.context", "training")])


def usage(benchmark: Path, time: int) -> list[Point]:
    """The time and memory of a training; empty if Snakemake has not measured it."""
    if not benchmark.exists():
        return []
    with benchmark.open(encoding="utf-8") as file:
        row = list(csv.DictReader(file, delimiter="\t"))[-1]
    points = []
    for column, name in USAGE.items():
        try:
            value = float(row[column])
        except (KeyError, ValueError):  # Snakemake writes NA or - for what it could not measure
            continue
        if math.isfinite(value):
            points.append((name, value, time, 0))
    return points
