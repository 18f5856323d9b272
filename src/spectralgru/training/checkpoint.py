"""Rolling checkpoints of a run: the newest and the one before it, each written whole and verified when read.

Runs train together but are saved one by one, so that any job can resume any of them: `of_run` takes the part of one run
from the state of a session, `of_runs` makes the state of a session from such parts. In a state, the first dimension of
a tensor and the items of a list stand for the runs; a tuple holds what all runs share.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from spectralgru.files import atomic_path

DIGEST_BYTES = 32


def of_run(state: Any, run: int) -> Any:
    """A copy of the part of one run."""
    if isinstance(state, dict):
        return {name: of_run(value, run) for name, value in state.items()}
    if isinstance(state, Tensor):
        return state[run : run + 1].clone()  # of a view, torch would save all runs
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
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), state)


def save(states: Iterable[tuple["CheckpointStore", Any]]) -> None:
    """Write the states of several runs; none is moved into place before all are complete."""
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
    """Checkpoints of one run, named by its key in a directory that only the trainer uses.

    The name includes the `device`: a GPU's projection keeps another state than a CPU's, and cannot continue from it.
    """

    def __init__(self, directory: Path, key: str, device: str = "cpu") -> None:
        self.directory, self.key = directory, key
        self.newest = directory / f"{key}-{device}.pt"
        self.previous = directory / f"{key}-{device}.previous.pt"
        self.lock = directory / f"{key}.lock"

    def save(self, state: dict[str, Any]) -> None:
        """Write `state` and its SHA-256; the newest checkpoint until now becomes the previous one."""
        save([(self, state)])

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest intact state, or None, and a line for every damaged file.

        Damaged files are removed, so that they never replace an intact one.
        """
        complaints: list[str] = []
        for path in (self.newest, self.previous):
            if not path.exists():
                continue
            if _is_intact(path):
                # torch reads a zip archive, which the 32 bytes after it do not disturb.
                return torch.load(path, map_location="cpu", weights_only=True), complaints
            path.unlink()
            complaints.append(f"{path}: damaged checkpoint, removed")
        return None, complaints

    def clear(self) -> None:
        """Remove the finished run's checkpoints on every device, and what killed processes left of it."""
        for path in self.files():
            path.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """All that `clear` would remove."""
        return list(self.directory.glob(f"*{self.key}*"))


class _HashingFile:
    """Hashes a file (SHA-256) while it is written, which needs no second copy of a large state in memory."""

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
