"""A separate store, a small campaign, and real servers: MLflow's on SQLite or PostgreSQL."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from tracked import copy_store

from results_records import make_run
from servers import POSTGRES, Postgres, Server
from spectralgru.pipeline.tracking import open_store

NUMBERS = count()


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if POSTGRES is None:
        pytest.skip("needs PostgreSQL (Debian's postgresql)")
    postgres = Postgres()
    postgres.start()
    yield postgres
    postgres.remove()


@pytest.fixture
def database(postgres: Postgres, tmp_path: Path, monkeypatch) -> str:
    """URI of an empty PostgreSQL database; artifacts go into the working directory, which is the test's."""
    monkeypatch.chdir(tmp_path)
    return postgres.new_database(f"test{next(NUMBERS)}")


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """On SQLite, or what the test's parameter says."""
    folder = tmp_path / "server"
    folder.mkdir()
    sqlite = getattr(request, "param", "sqlite") == "sqlite"
    uri = f"sqlite:///{folder}/mlflow.db" if sqlite else request.getfixturevalue("database")
    server = Server(uri, folder)
    server.start()
    yield server
    server.kill()
