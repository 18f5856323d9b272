"""Runs in progress: what their directories show before `run.json` exists."""

import csv
import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from spectralgru.pipeline.status import run_status
from spectralgru.pipeline.tracking.convert import EPOCH_COLUMNS, Point
from spectralgru.records import HISTORY_COLUMNS

MARK = "epochs"  # start of the content tag of a run in progress: `epochs <number> <hash>`


@dataclass(frozen=True)
class LiveRun:
    """A run directory that has a history but no record; its path tells which run it is."""

    directory: Path
    scale: str
    lines: list[str]  # history.csv, without its header

    @property
    def corpus(self) -> str:
        """Name of the corpus."""
        return self.directory.parent.parent.name

    @property
    def setting(self) -> str:
        """Name of the setting, as in paths."""
        return self.directory.parent.name

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.directory.name.removeprefix("seed-"))

    @cached_property
    def state(self) -> str:
        """`running`, or `interrupted` after a long silence."""
        return run_status(self.directory, self.corpus, self.setting, self.seed, 0, time.time()).state

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        """One row for each epoch, with columns `records.HISTORY_COLUMNS`."""
        return [
            dict(zip(HISTORY_COLUMNS, map(float, row), strict=True)) for row in csv.reader(self.lines) if row
        ]

    @property
    def started(self) -> int:
        """Estimated start in milliseconds since 1970, from the date of the last epoch."""
        written = (self.directory / "history.csv").stat().st_mtime
        return int(1000 * (written - sum(row["seconds"] for row in self.rows)))

    def points(self, started: int, after: int) -> Iterator[Point]:
        """Curves of the epochs after the first `after`, for a run that began at `started`."""
        seconds = 0.0
        for i, row in enumerate(self.rows):
            seconds += row["seconds"]
            for name in EPOCH_COLUMNS if i >= after else ():
                if math.isfinite(row[name]):
                    yield f"epoch/{name}", row[name], started + int(1000 * seconds), int(row["epoch"])


def read_live(directory: Path, scale: str) -> LiveRun | None:
    """The run in progress in a directory; None if nothing has begun there."""
    try:
        return LiveRun(directory.resolve(), scale, read_lines(directory))
    except FileNotFoundError:
        return None


def read_lines(directory: Path) -> list[str]:
    """The lines of a run's history.csv, one for each epoch, without the header."""
    return (directory / "history.csv").read_text(encoding="utf-8").splitlines()[1:]


def content(lines: list[str]) -> str:
    """The content tag of a run whose curves show these lines of history.csv."""
    return f"{MARK} {len(lines)} {hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def shown_epochs(tag: str, lines: list[str]) -> int | None:
    """The number of epochs that a run with this content tag shows; None unless they are the first of `lines`."""
    mark, _, rest = tag.partition(" ")
    if mark != MARK:
        return None
    count = int(rest.partition(" ")[0])
    return count if count <= len(lines) and tag == content(lines[:count]) else None
