"""Trains the runs of a job to their end and writes their run directories."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from spectralgru.errors import RunError
from spectralgru.files import json_text, write_text
from spectralgru.records import Run, is_finished, read_run, summed_up
from spectralgru.training.checkpoint import CheckpointStore, of_runs
from spectralgru.training.data.dataset import load
from spectralgru.training.data.loading import subset, width
from spectralgru.training.distributed import ALONE, Ranks, device_seen
from spectralgru.training.locks import POLL_SECONDS, held, locked, run_lock
from spectralgru.training.memory import check_memory, reuse_freed_memory
from spectralgru.training.precision import check_precision
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
    A run whose record has the same key (settings, data, code) is left as it is. A killed job resumes from its
    checkpoint and, on a CPU, ends with the same bits. Raises Preempted after SIGTERM or SIGINT, RunError if something
    cannot be written, InputError for an invalid device, for one without the job's precision, or if the runs need more
    memory than is free; finished runs stay as they are.
    """
    device = device_seen(device)
    check_precision(job.training.precision, device)
    reuse_freed_memory()
    try:
        corpus = load(prepared)
        keys = {replica: job.key(replica, corpus.sha256) for replica in job.replicas}
        writer = Writer(job, root, keys, corpus, device)
        say = say if ranks.first else lambda line: None
        size = together or len(job.replicas)
        for begin in range(0, len(job.replicas), size):
            group = job.replicas[begin : begin + size]
            _train(group, writer, checkpoints, say, checkpoint_seconds, ranks)
        records = ranks.agreed(lambda: [asdict(run) for run in _records(writer)])
        return [Run(**record) for record in records]
    except OSError as error:
        place = error.filename or f"{root} or {checkpoints}"
        raise RunError(
            f"{place}: cannot be written ({error.strerror}); finished runs and the last checkpoint are as they "
            "were. Correct it and run the same command again: it continues from there"
        ) from error


def _train(
    group: Sequence[Replica],
    writer: Writer,
    checkpoints: Path,
    say: Callable[[str], None],
    checkpoint_seconds: float,
    ranks: Ranks,
) -> None:
    """Train the unfinished runs of `group`; runs that have reached the same step train together."""
    job, device, used = writer.job, writer.device, subset(writer.corpus, writer.job.data)
    stores = {r: CheckpointStore(checkpoints, writer.keys[r], device.type) for r in group}
    if fresh := sum(not (writer.directory(r) / "run.json").exists() for r in group):
        check_memory(job, fresh, width(used), device)  # before anything is written
    left, told = list(range(len(group))), set[str]()
    while left:
        with ExitStack() as locks:
            runs = {i: group[i] for i in left}
            claimed, holders = ranks.agreed(partial(_claimed, runs, writer, stores, locks))
            for holder in {*holders.values()} - told:
                say(f"{holder} is training this already: waiting")
                told.add(holder)
            for equal, state in ranks.agreed(partial(_resumed, {i: stores[group[i]] for i in claimed}, say)):
                replicas = [group[i] for i in equal]
                say(check_memory(job, len(replicas), width(used), device))
                session = Session(job, replicas, used, writer, device, say, ranks, state)
                session.run(stores, checkpoint_seconds)
        left = [*claimed, *holders]
        if holders and not claimed:
            time.sleep(POLL_SECONDS)


def _claimed(
    runs: Mapping[int, Replica], writer: Writer, stores: Mapping[Replica, CheckpointStore], locks: ExitStack
) -> tuple[list[int], dict[int, str]]:
    """The unfinished runs: those this process has locked to train, and those that another trains, with its name."""

    def finished(replica: Replica) -> bool:
        return is_finished(writer.directory(replica), writer.keys[replica])

    def is_left(replica: Replica) -> bool:
        return bool(stores[replica].files()) or run_lock(writer.directory(replica)).exists()

    over = {i for i, replica in runs.items() if finished(replica)}
    open_runs = {i: replica for i, replica in runs.items() if i not in over or is_left(replica)}
    claimed: list[int] = []
    holders: dict[int, str] = {}
    # If two processes are told to train the same runs, one gets them all.
    with locked(writer.root / ".claims.lock") if open_runs else nullcontext():
        for i, replica in open_runs.items():
            # Others may write neither the directory (other settings) nor the checkpoints (other results).
            for path in (run_lock(writer.directory(replica)), stores[replica].lock):
                if holder := locks.enter_context(held(path)):
                    holders |= {} if i in over else {i: holder}
                    break
            else:
                if finished(replica):  # the previous holder of the lock may have finished it
                    stores[replica].clear()
                else:
                    claimed.append(i)
    return claimed, holders


def _resumed(
    stores: Mapping[int, CheckpointStore], say: Callable[[str], None]
) -> list[tuple[list[int], Any]]:
    """The runs that have reached the same step, and the state they resume from (None: the start)."""
    groups: dict[Any, list[tuple[int, Any]]] = {}
    for i, store in stores.items():
        state, complaints = store.load()
        for line in complaints:
            say(line)
        groups.setdefault(state and state["position"], []).append((i, state))
    return [
        ([i for i, _ in runs], None if position is None else of_runs([state for _, state in runs]))
        for position, runs in groups.items()
    ]


def _records(writer: Writer) -> list[Run]:
    """The records of all runs, also summed up in `setting.json` of each setting, whose date says when it was done."""
    replicas = writer.job.replicas
    runs = [read_run(writer.directory(replica)) for replica in replicas]
    for folder in {writer.directory(replica).parent for replica in replicas}:
        text = json_text(summed_up([run for run in runs if run.setting == folder.name]))
        path = folder / "setting.json"
        if not path.exists() or path.read_bytes() != text.encode():
            write_text(path, text)
    return runs
