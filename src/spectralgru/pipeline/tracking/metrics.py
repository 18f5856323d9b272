"""Writes metrics and parameters into a store, fast.

`MlflowClient.log_batch` builds an ORM object per point. If this process has the database open, the same rows are
inserted in bulk: importing 1,000 runs of 780 points took 179 s instead of 552 (on two cores shared with other work).
Servers, and versions of MLflow with other tables, get `log_batch`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from spectralgru.pipeline.tracking.convert import Point

BATCH = 1000  # metrics for each call, MLflow's limit
METRIC = {"key", "value", "timestamp", "step", "is_nan", "run_uuid"}
PARAM = {"key", "value", "run_uuid"}


def insert(client: Any, run_id: str, points: Sequence[Point], params: Mapping[str, str]) -> None:
    """Write finite points and parameters of a run that has none. Of points of equal name and step, the last counts."""
    points = list({(name, step): (name, value, time, step) for name, value, time, step in points}.values())
    if not _insert(client, run_id, points, params):
        add(client, run_id, points, params)


def add(
    client: Any,
    run_id: str,
    points: Sequence[Point],
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Add finite points and parameters to a run (repeating them changes nothing), then the tags."""
    from mlflow.entities import Metric, Param, RunTag

    metrics = [Metric(name, value, time, step) for name, value, time, step in points]
    for i in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[i : i + BATCH])
    if params:
        client.log_batch(run_id, params=[Param(name, value) for name, value in params.items()])
    if tags:
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _insert(client: Any, run_id: str, points: Sequence[Point], params: Mapping[str, str]) -> bool:
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import insert

    store = client._tracking_client.store
    tables = {SqlMetric.__table__: METRIC, SqlLatestMetric.__table__: METRIC, SqlParam.__table__: PARAM}
    known = all({column.name for column in table.columns} == names for table, names in tables.items())
    if not isinstance(store, SqlAlchemyStore) or not known:
        return False
    rows = [
        {
            "key": name,
            "value": float(value),
            "timestamp": time,
            "step": step,
            "is_nan": False,
            "run_uuid": run_id,
        }
        for name, value, time, step in points
    ]
    # MLflow defines the latest value of a metric by step, then by time.
    latest = {row["key"]: row for row in sorted(rows, key=lambda row: (row["step"], row["timestamp"]))}
    settings = [{"key": name, "value": value, "run_uuid": run_id} for name, value in params.items()]
    with store.ManagedSessionMaker(read_only=False) as session:
        for table, content in zip(tables, (rows, list(latest.values()), settings), strict=True):
            if content:
                session.execute(insert(table), content)
    return True
