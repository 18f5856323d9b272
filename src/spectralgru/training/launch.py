"""One training on as many processes and GPUs as it was given: its runs spread over them, or each batch split."""

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

import torch

from spectralgru.errors import InputError, RunError
from spectralgru.records import Run
from spectralgru.training.distributed import device_seen, die_with_parent
from spectralgru.training.gpus import gpu_slots
from spectralgru.training.settings import Job
from spectralgru.training.stopping import Preempted, stop_on_signal
from spectralgru.training.train import CHECKPOINT_SECONDS, train

Split = Literal["replicas", "batch"]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node"]


def train_in(
    job: Job,
    data: Path,
    root: Path,
    checkpoints: Path,
    processes: int = 1,
    split: Split = "replicas",
    gpus: int = 0,
    device: str | None = None,
    threads: int | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    together: int | None = None,
) -> list[Run]:
    """Train `job`, see `train`, sharing `threads` among `processes` (at least one a GPU), on `gpus` devices of its own.

    Raises InputError for processes and GPUs that do not fit each other, or GPUs that torch does not see.
    """
    count = max(processes, gpus)
    if gpus not in (0, count):
        raise InputError(f"{count} processes on {gpus} GPUs: give as many GPUs as processes, or none")
    device = device or ("cuda" if gpus else "cpu")
    threads = threads if threads is None else max(1, threads // count)
    if threads is not None:
        torch.set_num_threads(threads)
    prepared = data / "prepared" / f"{job.corpus}.npz"
    with gpu_slots(gpus, _say) as ids:
        if ids:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(ids)
            _say(f"GPU {', '.join(ids)}")
        device_seen(device)
        if count > 1:
            options = ["--data", str(data), "--out", str(root), "--checkpoints", str(checkpoints)]
            options += ["--checkpoint-seconds", str(checkpoint_seconds), "--device", device] + (
                [] if threads is None else ["--threads", str(threads)]
            )
            options += [] if together is None else ["--together", str(together)]
            launch(job, options, count, split, ids)
        # After a launch all runs are finished: this reads them and sums them up.
        return train(job, prepared, root, checkpoints, device, _say, checkpoint_seconds, together=together)


def _say(line: str) -> None:
    print(line, flush=True)


def launch(job: Job, options: Sequence[str], processes: int, split: Split, gpus: Sequence[str] = ()) -> None:
    """Train `job` in so many processes, each `python -m spectralgru.training JOB.json` with these options.

    `replicas`: every process trains some of the runs by itself. `batch`, and wherever there are fewer runs than
    processes: torchrun starts ranks that split every batch. `gpus`: one device id for each process, or none.
    Raises Preempted when told to stop and RunError when a process fails; checkpoints are left in both cases.
    """
    if split == "replicas" and len(job.replicas) >= processes:
        jobs = [replace(job, replicas=job.replicas[i::processes]) for i in range(processes)]
        modules: list[list[str]] = [[]] * processes
        devices = [gpus[i : i + 1] for i in range(processes)]
    else:
        jobs, modules, devices = [job], [[*TORCHRUN, str(processes), "-m"]], [gpus]
    with tempfile.TemporaryDirectory(prefix="spectralgru-") as folder, stop_on_signal() as stop:
        children = []
        for number, (part, module, visible) in enumerate(zip(jobs, modules, devices, strict=True)):
            file = Path(folder) / f"job-{number}.json"
            file.write_text(json.dumps(asdict(part)), encoding="utf-8")
            command = [sys.executable, "-m", *module, "spectralgru.training", str(file), *options]
            children.append(_start(command, visible))
        codes = _wait(children, stop)
    if stop and any(codes):
        raise Preempted("stopped; the same command goes on from the last checkpoint")
    if any(codes):
        raise RunError(
            f"a process failed (exit codes {codes}), see above; the same command goes on from the last checkpoint"
        )


def _start(command: Sequence[str], gpus: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = {"OMP_NUM_THREADS": "1"} | os.environ  # as torchrun sets it, without its warning
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return subprocess.Popen(command, env=environment, preexec_fn=die_with_parent, start_new_session=True)


def _wait(children: Sequence[subprocess.Popen[bytes]], stop: list[int]) -> list[int]:
    """Exit codes of all; a stop is handed on once."""
    told = False
    while any(child.poll() is None for child in children):
        if stop and not told:
            told = True
            for child in children:
                child.terminate()
        time.sleep(0.1)
    return [child.returncode for child in children]
