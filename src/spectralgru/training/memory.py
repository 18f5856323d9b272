"""Estimates the memory that the runs of a job need together, so that none fails later for lack of it."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

import torch

from spectralgru.errors import InputError
from spectralgru.training.settings import Job

FLOAT = 4
# Copies of a run's weights: the weights, their gradient, the best so far, and two models under test at the end.
COPIES = 5
# Tensors [T, B, H] per layer that live from the forward to the backward pass (inputs, masks, gates, candidates, states
# and their gradients), and tensors [T, B, V] around the loss.
STATES, LOGITS = 16, 4
# Allocators keep memory that is not in use.
SLACK = 1.2
# Libraries, buffers, the program itself.
PROGRAM = 600e6
# Parameters of `mallopt` (malloc.h).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
# The limit set by a container or a batch system, in control groups version 2 and 1.
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def bytes_per_run(job: Job, size: int) -> float:
    """Memory added by one more run; `size`: words or notes V."""
    model, training = job.model, job.training
    hidden, layers = model.hidden_size, model.num_layers
    weights = size * (2 * hidden + 1) + 6 * layers * hidden**2
    block = training.batch_size * training.bptt_steps
    return FLOAT * SLACK * (COPIES * weights + block * (STATES * hidden * (layers + 1) + LOGITS * size))


def bytes_available(device: torch.device) -> float:
    """Free memory of the device; on a CPU no more than the container or the batch system allows."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024.0 * float(lines["MemAvailable"].split()[0])
    except OSError:  # not Linux: all there is
        free = float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    for limit in LIMITS:
        try:
            free = min(free, float(Path(limit).read_text()))
        except (OSError, ValueError):  # no such group, or no limit: "max"
            continue
    return free


def reuse_freed_memory() -> None:
    """Let the C library keep large freed blocks, since every step asks for the same ones.

    Otherwise their pages are cleared and mapped again at every step (8 % of a step on words). Only glibc can do this.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def check_memory(job: Job, runs: int, size: int, device: torch.device) -> str:
    """A line about the memory that this many runs need at once; `size`: words or notes V.

    Raises InputError, with the number of runs that fit, if they need more than is free.
    """
    each, free = bytes_per_run(job, size), bytes_available(device)
    need = PROGRAM + runs * each
    if need > free:
        fit = int((free - PROGRAM) / each)
        remedy = (
            f"train fewer at a time: --together {fit}" if fit > 0 else "free some, or use a smaller model"
        )
        raise InputError(
            f"{runs} runs of {job.corpus} together need about {need / 1e9:.1f} GB of memory, {each / 1e6:.0f} MB each; "
            f"{free / 1e9:.1f} GB are free on {device}: {remedy}"
        )
    return f"{job.corpus}: {runs} runs together, about {need / 1e9:.1f} of {free / 1e9:.1f} GB of memory"
