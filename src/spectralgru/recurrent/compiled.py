"""The package's C++ as a library: compiled for this processor on first use, kept, and checked before it is loaded."""

import ctypes
import hashlib
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path

from spectralgru.errors import RunError
from spectralgru.files import private_folder, sha256

SOURCES = sorted(Path(__file__).parents[1].glob("*/*.cpp"))
HEADERS = sorted(Path(__file__).parents[1].glob("*/*.h"))
OPTIONS = ["-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-exceptions", "-shared", "-fPIC"]


def library() -> ctypes.CDLL | None:
    """The compiled library, kept in the user's cache; None if no compiler (`CXX`, or c++) can build them.

    A kept library is loaded only if no other user can write to it or its folder, and its SHA-256 is that in its name.
    """
    return _loaded()[0]


def remark() -> str:
    """Why there is no library, or why it is not kept; empty if nothing is wrong."""
    return _loaded()[1]


def compiler_version() -> str:
    """Version of the compiler that built the sweeps; "none" for PyTorch's, whose results differ in the last digits."""
    if library() is None:
        return "none"
    match = re.search(r"\d+(\.\d+)+", _about(*_compiler()).decode())
    return match.group() if match else "unknown"


@cache
def _loaded() -> tuple[ctypes.CDLL | None, str]:
    loaded, said = None, ""
    try:
        compiler = _compiler()
        _cache().mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as own:
            try:
                folder = private_folder(_cache())
            except RunError as error:
                folder, said = Path(own), f"compiled anew at every start: {error}"
            loaded = ctypes.CDLL(str(_kept(folder, compiler) or _compile(compiler, folder)))
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        said = f"{shlex.join(compiler)} fails: {lines[0] if lines else f'exit code {error.returncode}'}"
    except (OSError, RuntimeError, RunError, subprocess.TimeoutExpired) as error:
        said = str(error)  # RuntimeError: a user without a home
        if isinstance(error, RunError) and os.environ.get("CXX", "none") in ("", "none"):
            return None, said  # no compiler on this machine, or told to do without one
    if said:
        warnings.warn(f"GRUs on CPUs at half speed, or slow to start: {said}", RuntimeWarning, stacklevel=2)
    return loaded, said


def _compiler() -> list[str]:
    """The compile command; `CXX` may contain arguments, or a launcher such as ccache before the compiler."""
    named = os.environ.get("CXX") or "c++"
    try:
        program, *arguments = shlex.split(named)
    except ValueError:
        program, arguments = named, []
    path = shutil.which(program)
    if path is None:
        raise RunError(f"no C++ compiler {named}: install one, or set CXX to one (to none: do without)")
    return [path, *arguments]


@cache
def _about(*compiler: str) -> bytes:
    return subprocess.run([*compiler, "--version"], capture_output=True, check=True, timeout=60).stdout


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "spectralgru"


def _fingerprint(compiler: list[str]) -> str:
    """Hash of all that decides the machine code: machines with different processors may share a home folder."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor()]
    processor = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    parts = [
        *(path.read_bytes() for path in (*SOURCES, *HEADERS)),
        _about(*compiler),
        " ".join([*compiler[1:], *OPTIONS, *processor, platform.machine()]).encode(),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _kept(folder: Path, compiler: list[str]) -> Path | None:
    """A library compiled earlier, if it is intact and owned by this user; others with its name are removed."""
    for path in folder.glob(f"{_fingerprint(compiler)}-*.so"):
        info = path.lstat()
        own = stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022
        if own and path.stem.endswith(f"-{sha256(path)}"):
            return path
        path.unlink()
    return None


def _compile(compiler: list[str], into: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=into) as folder:
        compiled = Path(folder) / "sweeps.so"
        command = [*compiler, *OPTIONS, *map(str, SOURCES), "-o", str(compiled)]
        subprocess.run(command, capture_output=True, check=True, timeout=600)
        compiled.chmod(0o700)
        return compiled.replace(into / f"{_fingerprint(compiler)}-{sha256(compiled)}.so")
