"""The state of a campaign. It is read from the run directories alone, since the campaign may run on other machines."""

import csv
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from spectralgru.errors import InputError
from spectralgru.pipeline.params import Params
from spectralgru.records import TRACES, UNDER_WAY, Run, check_files, read_run, run_path

State = Literal["finished", "diverged", "running", "interrupted", "queued"]
STATES: tuple[State, ...] = ("finished", "diverged", "running", "interrupted", "queued")
# A run that has written nothing for this long, and for the time of three epochs, is no longer running.
SILENCE_SECONDS = 120.0


@dataclass(frozen=True)
class RunStatus:
    """One run of the campaign."""

    corpus: str
    setting: str
    seed: int
    state: State
    epoch: int  # last finished one
    epochs: int  # at most
    metric: float | None  # best of validation so far
    seconds: float  # of training so far; runs trained together share them


def run_status(
    directory: Path,
    corpus: str,
    setting: str,
    seed: int,
    epochs: int,
    now: float,
    key: Callable[[str], str] | None = None,
) -> RunStatus:
    """State of one run directory at the time `now` (seconds since 1970, as file dates are).

    `key` gives the key of the requested run from the corpus' SHA-256. Without it, every record counts as the requested
    run's.
    """
    run = _recorded(directory)
    for name in (UNDER_WAY, TRACES[0]):
        try:
            rows = _epochs(directory / name)
            silent = abs(now - (directory / name).stat().st_mtime)  # also for dates in the future
        except FileNotFoundError:
            continue
        seconds = [row[0] for row in rows]
        running = silent < max(SILENCE_SECONDS, 3 * sum(seconds) / max(len(seconds), 1))
        if run and name == UNDER_WAY and not running and (key is None or run.key == key(run.data_sha256)):
            continue  # abandoned; the run that it was to replace is the requested one
        state: State = "running" if running else "interrupted"
        if run and name != UNDER_WAY:
            state = run.status
        best = min((row[1] for row in rows), default=None)
        return RunStatus(corpus, setting, seed, state, len(rows), epochs, best, sum(seconds))
    return RunStatus(corpus, setting, seed, "queued", 0, epochs, None, 0.0)


def _recorded(directory: Path) -> Run | None:
    """The record of a run whose files are as they were written, or None."""
    try:
        run = read_run(directory)
        check_files(directory, run, TRACES)
    except InputError:
        return None
    return run


def _epochs(history: Path) -> list[tuple[float, float]]:
    """Seconds and validation metric of each epoch, up to the first damaged one."""
    rows = []
    damage = suppress(IsADirectoryError, PermissionError, ValueError, KeyError, TypeError, csv.Error)
    with damage, history.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows.append((float(row["seconds"]), float(row["valid_metric"])))
    return rows


def campaign_status(params: Params, root: Path) -> Iterator[RunStatus]:
    """Every run that params.yaml asks for at its scale, in the order of the tables."""
    now = time.time()
    for corpus in params.chosen_corpora():
        job = params.job(corpus, params.settings(corpus))
        for r in job.replicas:
            directory = run_path(root, corpus, r.method, r.value, r.seed)
            key = partial(job.key, r)
            yield run_status(directory, corpus, r.setting, r.seed, job.training.epochs, now, key)


def seconds_left(runs: list[RunStatus]) -> float | None:
    """Estimated time to the end of the campaign; None if no epoch has been finished yet.

    A job trains all seeds of a setting together. Jobs in progress need the time of their remaining epochs, waiting jobs
    that of the mean job on their corpus. The estimate assumes that as many jobs run side by side as now.
    """
    jobs: dict[tuple[str, str], list[RunStatus]] = {}
    for run in runs:
        jobs.setdefault((run.corpus, run.setting), []).append(run)
    whole: dict[str, list[float]] = {}  # seconds of a whole job, by corpus
    left, waiting, running = 0.0, [], 0
    for (corpus, _), seeds in jobs.items():
        slowest = max(seeds, key=lambda run: run.seconds)
        done = all(run.state in ("finished", "diverged") for run in seeds)
        if slowest.epoch:
            total = slowest.seconds if done else slowest.seconds * slowest.epochs / slowest.epoch
            whole.setdefault(corpus, []).append(total)
        if any(run.state == "running" for run in seeds):
            running += 1
        if not done and slowest.epoch:
            left += whole[corpus][-1] - slowest.seconds
        elif not done:
            waiting.append(corpus)
    known = [seconds for corpus in whole for seconds in whole[corpus]]
    if not known:
        return None if waiting or running else 0.0
    for corpus in waiting:
        like = whole.get(corpus, known)
        left += sum(like) / len(like)
    return left / max(running, 1)


def describe(params: Params, root: Path) -> str:
    """The campaign in a few lines: one for every corpus and every run in progress, and the time left."""
    runs = list(campaign_status(params, root))
    lines = []
    for corpus in params.chosen_corpora():
        counts = Counter(run.state for run in runs if run.corpus == corpus)
        parts = [f"{counts[state]} {state}" for state in STATES if counts[state]]
        lines.append(f"{corpus}: {sum(counts.values())} runs, {', '.join(parts)}")
    for run in runs:
        if run.state in ("running", "interrupted"):
            best = "" if run.metric is None else f", best validation {run.metric:.4g}"
            lines.append(
                f"  {run.corpus} {run.setting} seed {run.seed}: {run.state}, epoch {run.epoch}/{run.epochs}{best}"
            )
    return "\n".join([*lines, *filter(None, [time_left(runs)])])


def time_left(runs: list[RunStatus]) -> str:
    """`time left: about 12 min`; empty when there is nothing left to do."""
    seconds = seconds_left(runs)
    if seconds is None:
        return "time left: not known yet"
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"time left: about {seconds:.0f} s" if seconds else ""
    return f"time left: about {minutes} min" if minutes < 120 else f"time left: about {seconds / 3600:.1f} h"
