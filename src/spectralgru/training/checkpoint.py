"""Rolling checkpoints of a job: the newest and the one before it, each written whole and verified when read."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from spectralgru.files import atomic_path


class CheckpointStore:
    """Checkpoints of one job, at a path that belongs to the trainer alone, keyed by what determines the job."""

    def __init__(self, directory: Path, key: str) -> None:
        self.newest = directory / f"{key}.pt"
        self.previous = directory / f"{key}.previous.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Write `state`; the file it replaces becomes the previous one."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        with atomic_path(self.newest) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
            if self.newest.exists():
                self.newest.replace(self.previous)

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest state that is intact (None: there is none), and a line for every file that is not."""
        complaints: list[str] = []
        for path in (self.newest, self.previous):
            if not path.exists():
                continue
            content = path.read_bytes()
            if hashlib.sha256(content[32:]).digest() == content[:32]:
                return torch.load(io.BytesIO(content[32:]), weights_only=True), complaints
            complaints.append(f"{path}: damaged checkpoint, not used")
        return None, complaints

    def clear(self) -> None:
        """Remove both: the job is done."""
        self.newest.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)
