"""Locks that the operating system frees when their holder dies, however it dies."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.5


def try_lock(path: Path) -> int | None:
    """Lock the file (made if missing); its descriptor, to be closed when done, or None: another process has it."""
    try:
        descriptor = os.open(path, os.O_RDWR)  # no O_CREAT: sticky folders refuse it for files of other users
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        os.fchmod(descriptor, 0o666)  # whatever the umask: another user may be the next to lock it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not _is_at(path, descriptor):  # its last holder removed it meanwhile
        os.close(descriptor)
        return try_lock(path)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode())
    return descriptor


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def locked(path: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock `path`; while another process has it, wait, having told `on_wait` once who that is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = try_lock(path)
    if descriptor is None:
        on_wait(_holder(path))
    while descriptor is None:
        time.sleep(POLL_SECONDS)
        descriptor = try_lock(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        return path.read_text() or "another process"
    except FileNotFoundError:
        return "another process"
