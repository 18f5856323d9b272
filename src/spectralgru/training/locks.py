"""Locks that the operating system frees when their holder dies, in whatever way."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOSPC, EROFS
from pathlib import Path

from filelock import FileLock, Timeout

from spectralgru.errors import RunError

POLL_SECONDS = 0.5


def try_lock(path: Path) -> FileLock | None:
    """The lock `path` (created if missing), held until released; None if another process holds it.

    Raises RunError, and touches nothing, if `path` is a link, a folder, a FIFO or an inaccessible file of another user.
    """
    lock = FileLock(path, thread_local=False)
    try:
        with suppress(FileNotFoundError):
            os.close(_opened(path, os.O_RDONLY))
        lock.acquire(blocking=False)
        file = _opened(path, os.O_WRONLY)
    except Timeout:
        return None
    except OSError as error:
        lock.release()
        if error.errno in (EROFS, ENOSPC):
            raise
        raise RunError(f"{path}: cannot be locked ({error.strerror}); remove what lies there") from None
    with os.fdopen(file, "wb") as own:
        if os.fstat(file).st_uid == os.geteuid():
            own.truncate()
            own.write(f"process {os.getpid()} on {os.uname().nodename}".encode())
    return lock


def _opened(path: Path, flags: int) -> int:
    """Descriptor of a regular file with a single name; OSError, without waiting, for links, FIFOs and devices."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
        os.close(descriptor)
        raise OSError(0, "no lock file")
    return descriptor


@contextmanager
def held(path: Path) -> Iterator[str | None]:
    """Hold the lock `path` and yield None, or yield the name of the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = try_lock(path)
    if lock is None:
        yield _holder(path)
        return
    try:
        yield None
    finally:
        path.unlink(missing_ok=True)  # before the release: a waiting process then sees that the file is gone
        lock.release()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock `path`; waits for other holders, who are brief."""
    while True:
        with held(path) as holder:
            if holder is None:
                yield
                return
        time.sleep(POLL_SECONDS / 10)


def run_lock(directory: Path) -> Path:
    """The lock of a run directory, beside it."""
    return directory.with_name(f".{directory.name}.lock")


def _holder(path: Path) -> str:
    with suppress(OSError), os.fdopen(_opened(path, os.O_RDONLY), "rb") as file:
        text = file.read(200).decode(errors="replace")
        return text if text and text.isprintable() else "another process"
    return "another process"
