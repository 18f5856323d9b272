"""On a request to stop: write a checkpoint, then exit with a code that means "run me again"."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from spectralgru.errors import ExpectedError

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h


class Preempted(ExpectedError):
    """The process was asked to stop; a checkpoint was written, from which the same command resumes."""

    exit_code = EXIT_STOPPED


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """A list that becomes true when the process gets SIGTERM."""
    received: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, previous)
