"""Finding, watching and waiting for real processes."""

import time
from collections.abc import Callable
from pathlib import Path

from forks import Fork


def wait_for(condition: Callable[[], object], process: Fork | None = None, seconds: float = 120) -> None:
    """Wait until `condition()`; an error when `process` ends before or the time is over."""
    until = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            raise AssertionError(f"ended too soon ({process.returncode}): {process.communicate()}")
        assert time.monotonic() < until, f"waited {seconds} s"
        time.sleep(0.02)


def trainers(folder: Path) -> list[int]:
    """Process ids of the trainers (not of the shells that started them) that work in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            at = (process / "cwd").resolve()
        except OSError:
            continue
        if at == folder.resolve() and b"train" in arguments and b"python" in arguments[0]:
            found.append(int(process.name))
    return found
