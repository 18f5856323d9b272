"""Files are written whole or not at all."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from errno import EISDIR, ENXIO
from pathlib import Path
from stat import S_IFREG, S_ISDIR, S_ISREG
from typing import Any

from spectralgru.errors import RunError


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path; if the block succeeds, the file written there becomes `path`, otherwise it is removed.

    A regular file is replaced in one step and keeps its permissions. A link stays and its target is replaced, unless
    the target is write-protected, as in DVC's cache; then the link is replaced. A device or FIFO is written to in
    place. The temporary name keeps the suffix of `path`, for writers that look at it (numpy, matplotlib).

    Raises OSError for a directory, a FIFO without a reader, and anything else that cannot be written.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:  # or a link to nothing, which then becomes a file
        mode = S_IFREG | 0o666 & ~_umask()
    if S_ISDIR(mode):
        raise IsADirectoryError(EISDIR, "is a directory, not a file", str(path))
    if S_ISREG(mode) and mode & 0o222:
        path = Path(os.path.realpath(path))
    folder = path.parent if S_ISREG(mode) else Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    # The temporary name must not be too long for the file system.
    stem = os.fsdecode(os.fsencode(path.stem)[:100])
    try:
        handle, name = tempfile.mkstemp(prefix=f".{stem}-", suffix=f".partial{path.suffix[:32]}", dir=folder)
    except OSError as error:
        error.filename = str(path)
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if S_ISREG(mode):
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(mode & 0o777 if mode & 0o222 else 0o666 & ~_umask())
            temporary.replace(path)
        else:
            _write_through(path, temporary)
    except OSError as error:
        if error.filename in (None, name):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _write_through(path: Path, temporary: Path) -> None:
    try:  # Without O_NONBLOCK this would wait forever for somebody to read a FIFO.
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno == ENXIO:
            raise OSError(ENXIO, "nobody reads it", str(path)) from None
        raise
    os.set_blocking(handle, True)
    with temporary.open("rb") as written, os.fdopen(handle, "wb") as file:
        shutil.copyfileobj(written, file)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def private_folder(path: Path) -> Path:
    """The folder `path`, created private to this user if missing; an existing one is never altered.

    Raises RunError if it is a link or a file, belongs to another user, or is writable by others.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    info = path.lstat()
    if not S_ISDIR(info.st_mode):
        fault = "is not a folder"
    elif info.st_uid != os.geteuid():
        fault = f"belongs to another user (uid {info.st_uid})"
    elif info.st_mode & 0o022:
        fault = "is writable by others"
    else:
        return path
    raise RunError(
        f"{path}: {fault}, so nothing in it is trusted; remove it, or set TMPDIR (caches: XDG_CACHE_HOME)"
    )


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files that must not appear without one another: they are moved into place once all are written."""
    with ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(atomic_path(path)).write_bytes(content)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write `json_text(value)` to `path` atomically."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """`value` as indented JSON; ValueError for NaN and infinity, which are not JSON."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def sha256(path: Path | str) -> str:
    """SHA-256 of the file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_all(folder: Path, patterns: Iterable[str]) -> str:
    """SHA-256 of the names and contents of the files below `folder` that match one of the patterns."""
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    files = [path for path in paths if path.is_file()]
    lines = [f"{path.relative_to(folder).as_posix()} {sha256(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
