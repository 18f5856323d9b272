"""What the record of a run says about where it was made."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from spectralgru.errors import InputError
from spectralgru.recurrent import compiled

# Environment variable with the commit of a copy outside git.
COMMIT = "SPECTRALGRU_COMMIT"
MOST_THREADS = 1024  # torch crashes if the system refuses more


def set_threads(count: int | None) -> None:
    """Set the number of CPU threads (None: torch chooses). Raises InputError for too few or too many."""
    if count is not None and not 1 <= count <= MOST_THREADS:
        raise InputError(f"--threads {count}: give 1 to {MOST_THREADS}, at best as many as there are cores")
    if count is not None:
        torch.set_num_threads(count)


def versions() -> dict[str, str]:
    """Versions of the software that computes a run."""
    by_name = {"python": platform.python_version(), "compiler": compiled.compiler_version()}
    for package in ("spectralgru", "torch", "numpy"):
        try:
            by_name[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            by_name[package] = "source tree"
    return by_name


def git_commit() -> str:
    """Commit of the source tree, with `-dirty` if tracked files differ from it; outside a checkout, COMMIT's value."""
    here = Path(__file__).resolve()
    # This code runs already, so its owner is trusted: git need not refuse a checkout that another user owns.
    command = ["git", "-c", f"safe.directory={here.parents[3]}", "describe", "--always", "--dirty"]
    command += ["--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=here.parent, capture_output=True, text=True, check=False).stdout
    except OSError:
        answer = ""
    return answer.strip() or os.environ.get(COMMIT, "")


def device_name(device: torch.device) -> str:
    """Model of the processor or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "cpu"
