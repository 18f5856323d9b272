"""Train the runs of a job to their end and write their run directories."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch

from spectralgru.errors import RunError
from spectralgru.files import json_text, write_text
from spectralgru.records import Run, is_finished, read_run, run_path, summed_up
from spectralgru.training.checkpoint import CheckpointStore
from spectralgru.training.data.dataset import load
from spectralgru.training.data.loading import part, width
from spectralgru.training.distributed import ALONE, Ranks, device_seen
from spectralgru.training.memory import check_memory
from spectralgru.training.run_writer import Writer
from spectralgru.training.session import Session
from spectralgru.training.settings import Job, Replica

CHECKPOINT_SECONDS = 60.0


def train(
    job: Job,
    prepared: Path,
    root: Path,
    checkpoints: Path,
    device: torch.device | str = "cpu",
    say: Callable[[str], None] = print,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ranks: Ranks = ALONE,
    together: int | None = None,
) -> list[Run]:
    """Train what is not finished yet; returns the records of all runs of the job, in its order.

    `prepared`: the corpus' .npz. `root`: run directories go below it. `together`: how many runs at a time (None: all).
    A run whose record has the same key (settings, data, code) is left as it is; a killed job goes on from its
    checkpoint to the same bits (on a CPU). Raises Preempted after SIGTERM, RunError when something cannot be written,
    InputError for a device that is none or when the runs need more memory than is free; finished runs stay as they are.
    """
    device = device_seen(device)
    try:
        corpus = load(prepared)
        keys = {replica: job.key(replica, corpus.sha256) for replica in job.replicas}
        writer = Writer(job, root, keys, corpus, device)
        say = say if ranks.first else lambda line: None
        size = together or len(job.replicas)
        for begin in range(0, len(job.replicas), size):
            group = job.replicas[begin : begin + size]
            _train(group, writer, checkpoints, say, checkpoint_seconds, ranks)
        records = ranks.agreed(lambda: [asdict(run) for run in _records(writer, root)])
        return [Run(**record) for record in records]
    except OSError as error:
        place = error.filename or f"{root} or {checkpoints}"
        raise RunError(
            f"{place}: cannot be written ({error.strerror}); finished runs and the last checkpoint are as they "
            "were. Set it right and run the same command again: it goes on from there"
        ) from error


def _train(
    group: Sequence[Replica],
    writer: Writer,
    checkpoints: Path,
    say: Callable[[str], None],
    checkpoint_seconds: float,
    ranks: Ranks,
) -> None:
    """Train those of `group` that are not finished, together."""
    job, keys, device = writer.job, writer.keys, writer.device
    # The device is part of the name: random numbers, and so checkpoints, of a CPU are of no use to a GPU.
    mine = sorted(keys[replica] for replica in group)
    job_key = hashlib.sha256("".join([*mine, device.type]).encode()).hexdigest()
    store = CheckpointStore(checkpoints, job_key)
    used = part(writer.corpus, job.data)

    def pending() -> list[int]:
        return [i for i, r in enumerate(group) if not is_finished(writer.directory(r), keys[r])]

    if ranks.agreed(pending):
        with store.lock(say) if ranks.first else nullcontext():
            while left := ranks.agreed(pending):  # none, if another process has trained them meanwhile
                say(check_memory(job, len(left), width(used), device))
                state, complaints = ranks.agreed(store.load)
                for line in complaints:
                    say(line)
                replicas = [group[i] for i in left]
                session = Session(job, replicas, used, writer, device, say, ranks, state)
                session.run(store, checkpoint_seconds)
                ranks.agreed(store.clear)


def _records(writer: Writer, root: Path) -> list[Run]:
    """The records of all runs, summed up in their settings' folders."""
    runs = [read_run(writer.directory(replica)) for replica in writer.job.replicas]
    _write_summaries(runs, root)
    return runs


def _write_summaries(runs: Sequence[Run], root: Path) -> None:
    """`setting.json` in each setting's folder: what its runs came to. Its date says when the setting was done."""
    for setting in {run.setting for run in runs}:
        mine = [run for run in runs if run.setting == setting]
        path = run_path(root, mine[0].corpus, mine[0].method, mine[0].value, 0).parent / "setting.json"
        text = json_text(summed_up(mine))
        if not path.exists() or path.read_bytes() != text.encode():
            write_text(path, text)
