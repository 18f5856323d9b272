"""A request to stop: the trainer writes a checkpoint and exits with a code that means "run me again"."""

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
    """A list that becomes non-empty at SIGTERM or at SIGINT (Ctrl-C); a second SIGINT interrupts."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        if signal.SIGINT in received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    stops = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) != signal.SIG_IGN]
    previous = {number: signal.signal(number, note) for number in stops}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
