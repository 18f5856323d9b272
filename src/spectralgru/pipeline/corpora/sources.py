"""Fetches raw files from the first source that has them. Nothing is used before its SHA-256 is verified."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console

from spectralgru.errors import InputError, RunError
from spectralgru.files import atomic_path, sha256

MIRROR_VARIABLE = "SPECTRALGRU_MIRROR"


class SourceError(Exception):
    """Why a source did not provide the file; the next one is tried."""


class Source(Protocol):
    """A place that a file can come from; `str()` names it."""

    def obtain(self, file: "RawFile", target: Path, folder: Path) -> None:
        """Write the file to `target`; files worth keeping between calls go to `folder`.

        Raises SourceError.
        """


@dataclass(frozen=True)
class RawFile:
    """A file that a corpus is made from, known by name and content."""

    name: str
    sha256: tuple[str, ...]  # of every acceptable content
    sources: tuple[Source, ...] = ()

    def check(self, path: Path) -> None:
        """Raise SourceError unless `path` is a file with known content."""
        if path.exists() and not path.is_file():  # reading a FIFO or a device might never end
            raise SourceError("not a file")
        digest = sha256(path)
        if digest not in self.sha256:
            raise SourceError(f"wrong content (SHA-256 expected {' or '.join(self.sha256)}, found {digest})")


def fetch_file(corpus: str, file: RawFile, folder: Path) -> str | None:
    """Put `file` into `folder` from the first source that has it; return that source, None if it was there.

    Raises InputError if the file exists with the wrong content, RunError if no source has it.
    """
    target = folder / file.name
    if target.exists():
        try:
            file.check(target)
        except SourceError as error:
            raise InputError(f"{target}: {error}; delete it, and it will be fetched again") from None
        return None
    failures = []
    for source in (Mirror(corpus), *file.sources):
        try:
            with atomic_path(target) as temporary:
                source.obtain(file, temporary, folder)
                file.check(temporary)
        except SourceError as error:
            failures.append(f"  {source}: {error}")
        except OSError as error:
            raise RunError(
                f"{target}: cannot be written ({error}); make room, or choose another --data"
            ) from None
        else:
            Console(stderr=True, highlight=False).print(
                f"{corpus}: {file.name} from {source}", soft_wrap=True
            )
            return str(source)
    raise RunError(
        f"{corpus}: no source has {file.name} (SHA-256 {' or '.join(file.sha256)}):\n"
        + "\n".join(failures)
        + f"\nPut the file at {target} by hand, or into the folder {corpus}/ of a mirror that {MIRROR_VARIABLE} names"
    )


@dataclass(frozen=True)
class Mirror:
    """The folder `<corpus>/` of the mirror that an environment variable names."""

    corpus: str

    def __str__(self) -> str:
        return "mirror"

    def obtain(self, file: RawFile, target: Path, folder: Path) -> None:
        """Copy the file."""
        root = os.environ.get(MIRROR_VARIABLE)
        if not root:
            raise SourceError(f"{MIRROR_VARIABLE} is not set")
        path = Path(root) / self.corpus / file.name
        try:
            file.check(path)
        except FileNotFoundError:
            raise SourceError(f"{path}: no such file") from None
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
        except SourceError as error:
            raise SourceError(f"{path}: {error}; replace it, or unset {MIRROR_VARIABLE}") from None
        shutil.copyfile(path, target)
