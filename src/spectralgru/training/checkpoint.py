"""Rolling checkpoints of a job: the newest and the one before it, each written whole and verified when read."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from spectralgru.files import atomic_path
from spectralgru.training.locks import locked

DIGEST_BYTES = 32


class CheckpointStore:
    """Checkpoints of one job, at a path that belongs to the trainer alone, keyed by what determines the job."""

    def __init__(self, directory: Path, key: str) -> None:
        self.directory, self.key = directory, key
        self.newest = directory / f"{key}.pt"
        self.previous = directory / f"{key}.previous.pt"

    def lock(self, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Keep every other process from training this job; waits for one that does."""
        return locked(
            self.directory / f"{self.key}.lock", lambda holder: say(f"{holder} trains this already: waiting")
        )

    def save(self, state: dict[str, Any]) -> None:
        """Write `state` and its SHA-256; the file it replaces becomes the previous one."""
        with atomic_path(self.newest) as temporary:
            with temporary.open("wb") as file:
                hashing = _HashingFile(file)
                torch.save(state, hashing)  # type: ignore[arg-type]  # only write() and flush() are called
                file.write(hashing.digest.digest())
            if self.newest.exists():
                self.newest.replace(self.previous)

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest state that is intact (None: there is none), and a line for every file that is not.

        Damaged files are removed, so that they never take the place of an intact one.
        """
        complaints: list[str] = []
        for path in (self.newest, self.previous):
            if not path.exists():
                continue
            if _is_intact(path):
                # Its 32 bytes at the end do not disturb the zip archive before them.
                return torch.load(path, map_location="cpu", weights_only=True), complaints
            path.unlink()
            complaints.append(f"{path}: damaged checkpoint, removed")
        return None, complaints

    def clear(self) -> None:
        """Remove both, and what a killed process left half-written: the job is done."""
        for path in self.directory.glob(f"*{self.key}*"):
            if path.suffix == ".pt":
                path.unlink(missing_ok=True)


class _HashingFile:
    """A file being written, with the SHA-256 of what went through: no second copy of a large state in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()


def _is_intact(path: Path) -> bool:
    left, digest = path.stat().st_size - DIGEST_BYTES, hashlib.sha256()
    if left < 0:
        return False
    with path.open("rb") as file:
        while left:
            block = file.read(min(left, 1 << 20))
            digest.update(block)
            left -= len(block)
        return file.read() == digest.digest()
