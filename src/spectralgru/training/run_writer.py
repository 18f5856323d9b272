"""Writes what a run leaves behind: its history while it trains, and its record when it has ended."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch

from spectralgru.records import Run, run_path, write_history, write_run
from spectralgru.training import environment
from spectralgru.training.data.dataset import Corpus
from spectralgru.training.data.loading import baseline_loss, subset, why_nothing_learnt
from spectralgru.training.epoch import Divergence
from spectralgru.training.evaluate import metric
from spectralgru.training.progress import Progress
from spectralgru.training.settings import Job, Replica


@dataclass(frozen=True)
class Ending:
    """What is known of a run that has ended, in addition to its progress."""

    step: int  # the last
    divergence: Divergence | None
    rows: Sequence[Mapping[str, float]]  # of its trace
    spectrum: list[list[float]]
    seconds: float  # of its training, in its job


@dataclass
class Writer:
    """Writes the run directories of a job."""

    job: Job
    root: Path  # run directories go below it
    keys: Mapping[Replica, str]  # hash of everything that determines the run
    corpus: Corpus
    device: torch.device

    @cached_property
    def baseline(self) -> float:
        """Validation loss of predicting from the corpus' frequencies."""
        return baseline_loss(subset(self.corpus, self.job.data), "valid")

    def directory(self, replica: Replica) -> Path:
        """The run directory of a replica."""
        return run_path(self.root, self.job.corpus, replica.method, replica.value, replica.seed)

    def write_history(self, progress: Progress) -> None:
        """Write the history of a run so far; from now on its directory counts as that of a run in progress."""
        write_history(self.directory(progress.replica), progress.history)

    def write(self, progress: Progress, end: Ending, tests: tuple[float, float]) -> None:
        """Write the record of a run that has ended; `tests`: test losses of the best and of the last weights.

        A run that ends no better than the corpus' frequencies counts as diverged, too.
        """
        replica, kind, divergence = progress.replica, self.corpus.kind, end.divergence
        best, final = progress.best(), progress.final()
        if divergence is None and (reason := why_nothing_learnt(final["valid_loss"], self.baseline)):
            divergence = Divergence(len(progress.history), end.step, reason)
        if divergence is None:
            for figures, loss in zip((best, final), tests, strict=True):
                figures |= {"test_loss": loss, "test": metric(kind, loss)}
        run = Run(
            corpus=self.job.corpus,
            method=replica.method,
            value=replica.value,
            seed=replica.seed,
            scale=self.job.scale,
            status="finished" if divergence is None else "diverged",
            metric="perplexity" if kind == "words" else "nll",
            best=best,
            final=final,
            diverged=None if divergence is None else asdict(divergence),
            spectrum={"initial": progress.initial_spectrum, "final": end.spectrum},
            settings=self.job.settings() | {"learning_rate": replica.learning_rate},
            key=self.keys[replica],
            data_sha256=self.corpus.sha256,
            git_commit=environment.git_commit(),
            versions=environment.versions(),
            host=socket.gethostname(),
            device=environment.device_name(self.device),
            threads=torch.get_num_threads(),
            started=progress.started,
            wall_seconds=round(end.seconds, 3),
            replicas=progress.replicas,
        )
        weights = {name: weight.cpu().numpy() for name, weight in progress.best_weights.items()}
        write_run(self.directory(replica), run, progress.history, end.rows, weights)
