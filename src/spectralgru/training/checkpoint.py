"""Rolling checkpoints of a run: the newest and the one before it, each written whole and verified when read.

Runs train together but are saved one by one, so that any job can resume any of them: `of_run` takes a run's part
out of the state of a session, `of_runs` makes the state of a session from such parts. In a state a tensor's first
dimension and a list's items are the runs; the contents of a tuple are the same for all of them.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from spectralgru.files import atomic_path

DIGEST_BYTES = 32


def of_run(state: Any, run: int) -> Any:
    """The part of one run, a copy."""
    if isinstance(state, dict):
        return {name: of_run(value, run) for name, value in state.items()}
    if isinstance(state, Tensor):
        return state[run : run + 1].clone()  # with a view, torch would save all runs
    return state[run : run + 1] if isinstance(state, list) else state


def of_runs(states: Sequence[Any]) -> Any:
    """The state of a session of several runs that have reached the same step."""
    first = states[0]
    if isinstance(first, dict):
        return {name: of_runs([state[name] for state in states]) for name in first}
    if isinstance(first, Tensor):
        return torch.cat(list(states))
    return [item for state in states for item in state] if isinstance(first, list) else first


def on(state: Any, device: torch.device) -> Any:
    """The state with its tensors on `device`."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, dict):
        return {name: on(value, device) for name, value in state.items()}
    return [on(item, device) for item in state] if isinstance(state, list) else state


def save(states: Iterable[tuple["CheckpointStore", Any]]) -> None:
    """Write the states of several runs; all are complete before the first is moved into place."""
    stores = []
    with ExitStack() as stack:
        for store, state in states:
            stores.append(store)
            with stack.enter_context(atomic_path(store.newest)).open("wb") as file:
                hashing = _HashingFile(file)
                torch.save(state, hashing)  # type: ignore[arg-type]  # only write() and flush() are called
                file.write(hashing.digest.digest())
                file.flush()
                os.fsync(file.fileno())
        for store in stores:
            if store.newest.exists():
                store.newest.replace(store.previous)


class CheckpointStore:
    """Checkpoints of one run, at a path that belongs to the trainer alone, keyed by what determines the run.

    A GPU cannot use a CPU's random numbers, nor therefore its checkpoints: `device` is part of the name.
    """

    def __init__(self, directory: Path, key: str, device: str = "cpu") -> None:
        self.directory, self.key = directory, key
        self.newest = directory / f"{key}-{device}.pt"
        self.previous = directory / f"{key}-{device}.previous.pt"
        self.lock = directory / f"{key}.lock"

    def save(self, state: dict[str, Any]) -> None:
        """Write `state` and its SHA-256; the file it replaces becomes the previous one."""
        save([(self, state)])

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest intact state (None: there is none), and a line for every damaged file.

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
        """Remove the checkpoints of every device, and files and locks left by killed processes: the run is done."""
        for path in self.files():
            path.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """All that `clear` would remove."""
        return list(self.directory.glob(f"*{self.key}*"))


class _HashingFile:
    """A file being written, hashed (SHA-256) on the way: no second copy of a large state in memory."""

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
