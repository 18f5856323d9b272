"""Trains a job on several processes and GPUs: spreads its runs over them, or splits every batch."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Literal

from spectralgru.errors import InputError, RunError, say
from spectralgru.records import Run
from spectralgru.training.distributed import device_seen, die_with_parent, rank_environment
from spectralgru.training.environment import set_threads
from spectralgru.training.gpus import gpu_slots
from spectralgru.training.settings import Job
from spectralgru.training.stopping import EXIT_STOPPED, Preempted, stop_on_signal
from spectralgru.training.train import CHECKPOINT_SECONDS, train

Split = Literal["replicas", "batch"]
GRACE_SECONDS = 20.0  # how long ranks may outlive one that has failed


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
    """Train `job` as `train` does, on `gpus` reserved devices; `processes` (at least one per GPU) share the `threads`.

    Raises InputError if processes and GPUs do not match, or torch does not see the GPUs.
    """
    count, most = max(processes, gpus), max(len(job.replicas), job.training.batch_size)
    if count > most:
        raise InputError(
            f"{count} processes: more than the training has runs or a batch has lanes; use at most {most} processes"
        )
    if gpus not in (0, count):
        raise InputError(f"{count} processes on {gpus} GPUs: give as many GPUs as processes, or none")
    device = device or ("cuda" if gpus else "cpu")
    threads = threads if threads is None else max(1, threads // count)
    set_threads(threads)
    prepared = data / "prepared" / f"{job.corpus}.npz"
    with gpu_slots(gpus, say) as ids:
        if ids:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(ids)
            say(f"GPU {', '.join(ids)}")
        device_seen(device)
        if count > 1:
            options = {
                "data": data,
                "out": root,
                "checkpoints": checkpoints,
                "device": device,
                "threads": threads,
            }
            options |= {"checkpoint_seconds": checkpoint_seconds, "together": together}
            launch(job, options, count, split, ids)
        # After a launch all runs are finished, and this only reads and sums them up.
        return train(job, prepared, root, checkpoints, device, say, checkpoint_seconds, together=together)


def launch(
    job: Job, options: Mapping[str, object], processes: int, split: Split, gpus: Sequence[str] = ()
) -> None:
    """Train `job` in several processes, each `python -m spectralgru.training JOB.json` with these options.

    Options that are None or False are left out; True makes a flag.

    With the split `replicas`, every process trains some of the runs by itself. With `batch`, or if there are fewer runs
    than processes, the processes are ranks that split every batch. `gpus`: one device id for each process, or none.
    Raises Preempted when told to stop, InputError or RunError when a process fails; checkpoints stay.
    """
    given = [
        [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        for name, value in options.items()
        if value is not None and value is not False
    ]
    alone = split == "replicas" and len(job.replicas) >= processes
    with tempfile.TemporaryDirectory(prefix="spectralgru-") as folder, stop_on_signal() as stop:
        children = []
        for number in range(processes):
            file = Path(folder) / f"job-{number}.json"
            part = replace(job, replicas=job.replicas[number::processes]) if alone else job
            file.write_text(json.dumps(asdict(part)), encoding="utf-8")
            environment = {"OMP_NUM_THREADS": "1"} | os.environ  # as torchrun sets it
            if not alone:
                environment |= rank_environment(number, processes, Path(folder) / "ranks")
            if gpus:
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[number : number + 1] if alone else gpus)
            command = [sys.executable, "-m", "spectralgru.training", str(file), *chain(*given)]
            children.append(
                subprocess.Popen(command, env=environment, preexec_fn=die_with_parent, start_new_session=True)
            )
        codes = _wait(children, stop, ranks=not alone)
    if any(codes) and (stop or set(codes) <= {0, EXIT_STOPPED}):
        raise Preempted("stopped; the same command continues from the last checkpoint")
    if any(codes):
        kind = InputError if set(codes) <= {0, 2} else RunError
        raise kind(
            f"a process failed (exit codes {codes}), see above; the same command continues from the last checkpoint"
        )


def _wait(children: Sequence[subprocess.Popen[bytes]], stop: list[int], ranks: bool) -> list[int]:
    """Exit codes of all; a stop is passed on once. `ranks`: when one fails, the others get GRACE_SECONDS to end."""
    told, end = False, math.inf
    while any(child.poll() is None for child in children):
        if stop and not told:
            told = True
            for child in children:
                child.terminate()
        if ranks and end == math.inf and any(child.returncode for child in children):
            end = time.monotonic() + GRACE_SECONDS
        if time.monotonic() > end:
            for child in children:
                child.kill()
        time.sleep(0.1)
    return [child.returncode for child in children]
