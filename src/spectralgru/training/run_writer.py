"""What a run leaves behind: its history while it trains, its record when it has ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spectralgru.records import Run, run_path, write_history, write_run
from spectralgru.training import environment
from spectralgru.training.data.dataset import Corpus
from spectralgru.training.progress import Progress
from spectralgru.training.settings import Job, Replica


@dataclass
class Writer:
    """Writes the run directories of a job."""

    job: Job
    root: Path  # run directories go below it
    keys: Mapping[Replica, str]  # hash of everything that determines the run
    corpus: Corpus
    device: torch.device

    def directory(self, replica: Replica) -> Path:
        """The run directory of a replica."""
        return run_path(self.root, self.job.corpus, replica.method, replica.value, replica.seed)

    def write_history(self, progress: Progress) -> None:
        """Show how far a run has come; from now on the directory is that of a run under way."""
        write_history(self.directory(progress.replica), progress.history)

    def write(
        self,
        progress: Progress,
        best: dict[str, float],
        final: dict[str, float],
        diverged: dict[str, Any] | None,
        steps: Sequence[Mapping[str, float]],
        spectrum: list[list[float]],
        seconds: float,
    ) -> None:
        """Write the record of a run that has ended. `seconds`: of its training, in its job."""
        replica = progress.replica
        run = Run(
            corpus=self.job.corpus,
            method=replica.method,
            value=replica.value,
            seed=replica.seed,
            scale=self.job.scale,
            status="finished" if diverged is None else "diverged",
            metric="perplexity" if self.corpus.kind == "words" else "nll",
            best=best,
            final=final,
            diverged=diverged,
            spectrum={"initial": progress.initial_spectrum, "final": spectrum},
            settings=self.job.settings() | {"learning_rate": replica.learning_rate},
            key=self.keys[replica],
            data_sha256=self.corpus.sha256,
            git_commit=environment.git_commit(),
            versions=environment.versions(),
            host=environment.host(),
            device=environment.device_name(self.device),
            threads=torch.get_num_threads(),
            started=progress.started,
            wall_seconds=round(seconds, 3),
            replicas=progress.together,
        )
        weights = {name: weight.cpu().numpy() for name, weight in progress.best_weights.items()}
        write_run(self.directory(replica), run, progress.history, steps, weights)
