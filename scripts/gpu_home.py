"""What a GPU campaign sends home: the records of its runs without their weights, in few and small files.

Where a borrowed machine keeps nothing, only what lies in one folder when a command ends, or is killed, comes back: at
most FILES files of FILE_BYTES each. So every file is replaced by an atomic rename; at most one more, PARTIAL, is left
by a kill. A run's model stays behind; its SHA-256 stands in `run.json`.
"""

import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

FILES, FILE_BYTES = 8, 16 << 20
LOG_BYTES = 1 << 20
PARTIAL = ".partial"
# `run.json` first: where it is there, the others are those of the finished run.
RECORDS = ("run.json", "history.csv", "steps.csv")
ARCHIVES = ("runs.tar.gz", "runs-2.tar.gz")
BENCH, TESTS, LOG, TRAINER_LOG, TESTS_LOG = (
    "bench.json",
    "tests.xml",
    "campaign.log",
    "trainer.log",
    "tests.log",
)


class Home:
    """The folder that is brought home, and where its files come from."""

    def __init__(self, folder: Path, root: Path, runs: Iterable[Path], work: Path) -> None:
        """`runs`: directories below `root` (the results); logs, measurements and reports lie in `work`."""
        self.folder, self.root, self.runs, self.work = folder, root, list(runs), work
        folder.mkdir(parents=True, exist_ok=True)

    def bring(self) -> list[str]:
        """Replace every file by today's; names of runs that did not fit."""
        parts, left = _pack(self.root, self.runs, self.work)
        for name, part in zip(ARCHIVES, parts, strict=False):
            self._put(part, name)
        for path in (self.work / name for name in (BENCH, TESTS, LOG, TRAINER_LOG, TESTS_LOG)):
            if path.exists():
                self._put(_tail(path) if path.stat().st_size > LOG_BYTES else path, path.name)
        return left

    def _put(self, source: Path, name: str) -> None:
        partial = self.folder / PARTIAL
        shutil.copyfile(source, partial)
        partial.replace(self.folder / name)


def _pack(root: Path, runs: Iterable[Path], work: Path) -> tuple[list[Path], list[str]]:
    """Archives of the runs' records, each small enough, and the runs that are in none."""
    waiting = [run for run in runs if any((root / run / name).exists() for name in RECORDS)]
    parts = []
    for name in ARCHIVES:
        if waiting or not parts:
            parts.append(work / f".{name}")
            with tarfile.open(parts[-1], "w:gz", compresslevel=6) as archive:
                while (
                    waiting
                    and _size(archive) + sum(f.stat().st_size for f in _files(root, waiting[0])) < FILE_BYTES
                ):
                    for path in _files(root, waiting.pop(0)):
                        archive.add(path, path.relative_to(root).as_posix())
    return parts, [run.as_posix() for run in waiting]


def _files(root: Path, run: Path) -> Iterator[Path]:
    return (path for name in RECORDS if (path := root / run / name).exists())


def _size(archive: tarfile.TarFile) -> int:
    return Path(archive.name).stat().st_size + (1 << 17)  # and what is still in buffers


def _tail(log: Path) -> Path:
    """The end of a log, in a file of its own."""
    end = log.with_name(f".{log.name}")
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        end.write_bytes(file.read())
    return end
