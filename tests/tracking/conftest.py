"""A store of one's own, a small campaign, and a real MLflow server on SQLite."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Server
from tracked import copy_store

from results_records import make_run
from spectralgru.tracking import open_store


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A store with its tables; creating them takes seconds, copying them nothing."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_store(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path, monkeypatch) -> str:
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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(f"sqlite:///{folder}/mlflow.db", folder)
    server.start()
    yield server
    server.kill()
