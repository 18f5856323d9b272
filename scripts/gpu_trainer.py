"""Trains what a GPU campaign has planned, one job after the other; started by `gpu_campaign.py`, which it outlives.

    python scripts/gpu_trainer.py WORK --until SECONDS JOB.json ... -- OPTIONS OF THE TRAINER

Holds WORK/../lock while it lives; exit codes go to WORK/codes.json, null for a job that was stopped at the deadline.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectralgru.files import write_json
from spectralgru.training.locks import try_lock

LOCK, CODES, LOG = "lock", "codes.json", "trainer.log"
# What a training told to stop may take to write its checkpoint.
GRACE_SECONDS = 60.0
SOURCE = Path(__file__).resolve().parents[1] / "src"
Process = subprocess.Popen[bytes]


def start(command: Sequence[str], log: Path, **more: Any) -> Process:
    """Start Python on this tree's package, its output added to a log."""
    path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as out:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT}
        return subprocess.Popen([sys.executable, *command], env=environment, **streams, **more)


def ended(process: Process, seconds: float, grace: float = 5.0) -> int | None:
    """Exit code of a process; None if it had to be told to stop (SIGTERM, after `grace` SIGKILL) after `seconds`."""
    try:
        return process.wait(max(seconds, 0))
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return None


def main() -> int:
    """Parse the command line and train; 1 if another trainer is at work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--until", type=float, required=True, help="deadline, on the monotonic clock")
    parser.add_argument("jobs", type=Path, nargs="+")
    mine, more = sys.argv[1:], []
    if "--" in mine:
        at = mine.index("--")
        mine, more = mine[:at], mine[at + 1 :]
    options = parser.parse_args(mine)
    if (lock := try_lock(options.work.parent / LOCK)) is None:
        return 1
    codes = {}
    for job in options.jobs:
        command = ["-m", "spectralgru.training", str(job), *more]
        process = start(command, options.work / LOG, start_new_session=True)
        codes[job.stem] = ended(process, options.until - time.monotonic(), GRACE_SECONDS)
    write_json(options.work / CODES, codes)
    lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
