"""Limits for hostile input in this process: a hang or a flood of memory fails the test instead of the machine."""

import contextlib
import resource
import signal
from pathlib import Path

MIB = 2**20


class Hang(BaseException):
    """No `except Exception` swallows it."""


@contextlib.contextmanager
def limited(seconds, megabytes):
    """Bound the CPU seconds of the block, and the memory that it adds."""

    def stop(_signal, _frame):
        raise Hang(f"more than {seconds} CPU seconds")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + megabytes * MIB, hard))
    handler = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def one_clear_line(message):
    """Whether a message fits on a screen and cannot play with the terminal."""
    return 0 < len(message) < 700 and message.isprintable()
