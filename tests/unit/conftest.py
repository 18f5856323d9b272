"""Fixtures of the tests of tracking: a store of one's own, and a small campaign."""

from pathlib import Path

import pytest
from results_records import make_run


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A store with its tables; creating them takes seconds, copying them nothing."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    from spectralgru.tracking import open_store

    open_store(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path, monkeypatch) -> str:
    from tracked import copy_store

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return copy_store(empty_store, tmp_path / "mlflow.db")


@pytest.fixture
def campaign(tmp_path: Path) -> tuple[Path, list[Path]]:
    root = tmp_path / "results" / "quick"
    runs = [make_run(root, "ptb", "constraint", 0.2, seed) for seed in (0, 1)]
    runs += [
        make_run(root, "ptb", "none", None, 0, diverged_in=3),
        make_run(root, "ptb", "none", None, 1, diverged_in=1),
    ]
    return root, [*runs, make_run(root, "chorales", "clipping", 15.0, 0)]
