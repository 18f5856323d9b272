"""Remove the lock that a killed snakemake left behind, unless another one is at work in this folder.

Options are handed on to `snakemake --unlock`.
"""

import subprocess
import sys
from pathlib import Path

import psutil


def is_snakemake_here(process: psutil.Process) -> bool:
    """Whether the process is a snakemake in the current folder."""
    try:
        return Path(process.cwd()) == Path.cwd() and any(
            Path(word).name == "snakemake" for word in process.cmdline()[:4]
        )
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


locks = list(Path(".snakemake/locks").glob("*"))
if locks and not any(is_snakemake_here(process) for process in psutil.process_iter()):
    unlock = [sys.executable, "-m", "snakemake", "--unlock", *sys.argv[1:]]
    sys.exit(subprocess.run(unlock, check=False).returncode)
