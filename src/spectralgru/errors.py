"""Errors that a person can do something about, and the one line that reports any error."""

import errno
import reprlib

INTERRUPTED = 130  # exit code of a command that SIGINT ended
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlist = _SHORT.maxtuple = 10
# Errors of a path that a person gave; other errors of the system (a full disk) are not bad input.
_BAD_PATHS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO)
_NO_MEMORY = (
    "out of memory",
    "allocate memory",
    "bad_alloc",
    "failed to map segment",
    "can't start new thread",
)


class ExpectedError(Exception):
    """An error whose message is all that a person needs."""

    exit_code: int


class InputError(ExpectedError):
    """Bad input or usage. The message names the thing, the value and the remedy."""

    exit_code = 2


class RunError(ExpectedError):
    """A valid request that could not be carried out, for example no source reachable."""

    exit_code = 1


def say(line: str) -> None:
    """Print a line without buffering. Raises RunError if standard output cannot be written."""
    try:
        print(line, flush=True)
    except OSError as error:
        raise RunError(
            f"standard output: {error.strerror}; finished runs and the last checkpoint are kept. Run the same command "
            "again with somewhere to write to: it continues from there"
        ) from None


def shown(value: object) -> str:
    """The value as messages quote it: on one line, however large it is."""
    return _SHORT.repr(value)


def on_one_line(text: str) -> str:
    """The text with escapes for line ends, control characters and bytes outside UTF-8, which file names may contain."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def explained(error: BaseException) -> tuple[int, str]:
    """Exit code of a command that ended with `error`, and the message for its user."""
    if isinstance(error, ExpectedError):
        return error.exit_code, on_one_line(str(error))
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError) or any(sign in said for sign in _NO_MEMORY):
        return 1, (
            f"not enough memory ({said or 'none left'}); close other programs, train fewer runs at a time "
            "(--together), or use a machine with more memory or a higher limit"
        )
    if isinstance(error, OSError):
        place = on_one_line(f"{error.filename}: ") if error.filename is not None else ""
        remedy = (
            "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "correct it or name another place"
        )
        return (
            2 if error.errno in _BAD_PATHS else 1,
            f"{place}{error.strerror or said}; {remedy}, and run the same command again",
        )
    return (
        1,
        f"a bug in spectralgru ({type(error).__name__}: {said}); --debug shows where; please report it",
    )
