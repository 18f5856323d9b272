"""Rolling checkpoints of a job: the newest and the one before it, each written whole and verified when read."""

import hashlib
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from spectralgru.files import atomic_path
from spectralgru.locks import locked


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
        """Write `state`; the file it replaces becomes the previous one."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        with atomic_path(self.newest) as temporary:
            with temporary.open("wb") as file:
                file.write(hashlib.sha256(content).digest())
                file.write(content)
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
            content = path.read_bytes()
            if hashlib.sha256(content[32:]).digest() == content[:32]:
                return torch.load(io.BytesIO(content[32:]), weights_only=True), complaints
            path.unlink()
            complaints.append(f"{path}: damaged checkpoint, removed")
        return None, complaints

    def clear(self) -> None:
        """Remove both, and what a killed process left half-written: the job is done."""
        for path in self.directory.glob(f"*{self.key}*"):
            if path.suffix == ".pt":
                path.unlink(missing_ok=True)
