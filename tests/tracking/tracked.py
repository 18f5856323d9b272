"""What an MLflow experiment holds, for the tests of tracking."""

import sqlite3
from pathlib import Path

from spectralgru.pipeline.tracking import open_store


def copy_store(source: Path, target: Path) -> str:
    """A copy of a SQLite store, what is still in its log included, and its URI."""
    with sqlite3.connect(source) as old, sqlite3.connect(target) as new:
        old.backup(new)
    return f"sqlite:///{target}"


def runs_of(uri: str, experiment: str) -> dict:
    client = open_store(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    names = [run.info.run_name for run in found]
    assert len(set(names)) == len(names)
    return dict(zip(names, found, strict=True))
