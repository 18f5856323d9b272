"""A real MLflow server on SQLite."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))  # the run directories of the unit tests

from servers import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(f"sqlite:///{folder}/mlflow.db", folder)
    server.start()
    yield server
    server.kill()
