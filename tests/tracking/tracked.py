"""What an MLflow experiment holds, and processes that write to one, for the tests of tracking."""

import os
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path

from forks import FORKS
from spectralgru.pipeline.tracking import open_store, track


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


class Writer:
    """A process that imports the runs below `root` into the store `uri`."""

    def __init__(self, root: Path, uri: str, runs: Sequence[Path] | None = None) -> None:
        runs = sorted(root.glob("runs/*/*/seed-*")) if runs is None else runs
        handle, name = tempfile.mkstemp()
        os.close(handle)
        self.errors = Path(name)
        self.process = FORKS.Process(target=_write, args=(root, uri, runs, self.errors))
        self.process.start()

    def ended(self) -> bool:
        return self.process.exitcode is not None

    def wait(self) -> tuple[int | None, str]:
        """Exit code and what it said on standard error."""
        self.process.join(timeout=300)
        said = self.errors.read_text()
        self.errors.unlink()
        return self.process.exitcode, said


def _write(root: Path, uri: str, runs: list[Path], errors: Path) -> None:
    with errors.open("w") as file:
        os.dup2(file.fileno(), 2)
    os.environ["MLFLOW_TRACKING_URI"] = uri
    track(root, runs, data=root)
