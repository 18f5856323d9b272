"""One training in several processes: its runs spread over them, or each batch split among them."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from spectralgru.errors import RunError
from spectralgru.training.distributed import die_with_parent
from spectralgru.training.settings import Job
from spectralgru.training.stopping import Preempted, stop_on_signal

Split = Literal["replicas", "batch"]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node"]


def launch(job: Job, options: Sequence[str], processes: int, split: Split, gpus: Sequence[str] = ()) -> None:
    """Train `job` in so many processes, each `python -m spectralgru.training JOB.json` with these options.

    `replicas`: every process trains some of the runs by itself. `batch`, and wherever there are fewer runs than
    processes: torchrun starts ranks that split every batch. `gpus`: one device id for each process, or none.
    Raises Preempted when told to stop and RunError when a process fails; checkpoints are left in both cases.
    """
    with tempfile.TemporaryDirectory(prefix="spectralgru-") as folder:
        if split == "replicas" and len(job.replicas) >= processes:
            jobs = [replace(job, replicas=job.replicas[i::processes]) for i in range(processes)]
            modules: list[list[str]] = [[]] * processes
            devices = [gpus[i : i + 1] for i in range(processes)]
        else:
            jobs, modules, devices = [job], [[*TORCHRUN, str(processes), "-m"]], [gpus]
        children = []
        with stop_on_signal() as stop:
            for number, (part, module, visible) in enumerate(zip(jobs, modules, devices, strict=True)):
                file = Path(folder) / f"job-{number}.json"
                file.write_text(json.dumps(asdict(part)), encoding="utf-8")
                command = [sys.executable, "-m", *module, "spectralgru.training", str(file), *options]
                children.append(_start(command, visible))
            codes = _wait(children, stop)
    if stop and any(codes):
        raise Preempted("stopped; checkpoints written")
    if any(codes):
        failed = sum(code != 0 for code in codes)
        raise RunError(
            f"{failed} of {len(codes)} started processes failed (exit codes {codes}), see above; "
            "the same command goes on from the last checkpoint"
        )


def _start(command: Sequence[str], gpus: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return subprocess.Popen(command, env=environment, preexec_fn=die_with_parent, start_new_session=True)


def _wait(children: Sequence[subprocess.Popen[bytes]], stop: list[int]) -> list[int]:
    told = False
    while any(child.poll() is None for child in children):
        if stop and not told:
            told = True
            for child in children:
                child.terminate()
        time.sleep(0.1)
    return [child.returncode for child in children]
