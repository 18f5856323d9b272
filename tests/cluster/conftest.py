"""A real SLURM on this machine, there for the tests alone: Debian's slurm-wlm and munge, two nodes on one host."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

CONFIGURATION = Path("/etc/slurm")  # where else it lies, tasks inside jobs do not find it
FOLDERS = [
    Path("/var/log/slurm"),
    *(Path("/var/lib/slurm") / f for f in ("slurmctld", "slurmd-n1", "slurmd-n2")),
]


def sh(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    if os.getuid() != 0:
        pytest.skip("needs root, to install and start slurm-wlm and munge")
    if shutil.which("slurmctld") is None or shutil.which("munged") is None:
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        sh("apt-get", "install", "-y", "-qq", "slurm-wlm", "munge")
    if (CONFIGURATION / "slurm.conf").exists() and not _is_left_over():
        pytest.skip(f"{CONFIGURATION}/slurm.conf exists: this machine has a SLURM of its own")
    host = os.uname().nodename.split(".")[0]
    text = (Path(__file__).parent / "slurm.conf").read_text().replace("HOST", host)
    started: list[subprocess.Popen[bytes]] = []
    try:
        CONFIGURATION.mkdir(exist_ok=True)
        for folder in FOLDERS:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        (CONFIGURATION / "slurm.conf").write_text(text)
        (CONFIGURATION / "gres.conf").write_text("Name=gpu File=/dev/zero\nName=gpu File=/dev/null\n")
        run_munge = Path("/run/munge")
        run_munge.mkdir(exist_ok=True)
        shutil.chown(run_munge, "munge", "munge")
        munged = ["runuser", "-u", "munge", "--", "munged", "--foreground", "--force"]
        if subprocess.run(["munge", "-n"], capture_output=True).returncode:
            started.append(subprocess.Popen(munged, stderr=subprocess.DEVNULL))
        _wait_until(lambda: subprocess.run(["munge", "-n"], capture_output=True).returncode == 0, "munged")
        started.append(subprocess.Popen(["slurmctld", "-D"], stderr=subprocess.DEVNULL))
        started += [
            subprocess.Popen(["slurmd", "-D", "-N", node], stderr=subprocess.DEVNULL) for node in ("n1", "n2")
        ]
        _wait_until(lambda: sh("sinfo", "--noheader", "--format=%T").split() == ["idle"], "two idle nodes")
        yield
    finally:
        with suppress(OSError, subprocess.CalledProcessError):
            sh("scancel", "--user", "root")
            time.sleep(2)
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
        for process in started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        for name in ("slurm.conf", "gres.conf"):  # left behind, they would slow down every snakemake
            (CONFIGURATION / name).unlink(missing_ok=True)


def _is_left_over() -> bool:
    """Whether the configuration is that of tests which were killed: ours, and nobody at work under it."""
    ours = (CONFIGURATION / "slurm.conf").read_text().startswith("# Two nodes of a cluster on one host")
    return ours and subprocess.run(["pgrep", "-x", "slurmctld"], capture_output=True).returncode != 0


def _wait_until(condition, what: str) -> None:
    until = time.monotonic() + 60
    while True:
        with suppress(subprocess.CalledProcessError):
            if condition():
                return
        if time.monotonic() > until:
            logs = "\n".join(f"{log}:\n{log.read_text()[-2000:]}" for log in sorted(FOLDERS[0].glob("*.log")))
            raise AssertionError(f"no {what} within 60 s\n{logs}")
        time.sleep(0.5)
