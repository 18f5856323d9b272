"""Train the runs of a job to their end and write their run directories."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spectralgru.corpora.dataset import Corpus, load
from spectralgru.errors import InputError
from spectralgru.files import write_json
from spectralgru.models import ReplicatedModel
from spectralgru.records import Run, read_run, run_path, write_run
from spectralgru.training import environment
from spectralgru.training.batches import evaluation_stream, training_stream
from spectralgru.training.checkpoint import CheckpointStore
from spectralgru.training.data import baseline_loss, part, width
from spectralgru.training.evaluate import evaluate, metric
from spectralgru.training.progress import Progress
from spectralgru.training.replicas import Engine
from spectralgru.training.schedule import LearningRate
from spectralgru.training.settings import Job, Replica
from spectralgru.training.stopping import Preempted, stop_on_signal
from spectralgru.training.trace import Trace


def train(
    job: Job,
    prepared: Path,
    root: Path,
    checkpoints: Path,
    device: torch.device | str = "cpu",
    say: Callable[[str], None] = print,
    checkpoint_seconds: float = 60.0,
) -> list[Run]:
    """Train what is not finished yet; returns the records of all runs of the job, in its order.

    `prepared`: the corpus' .npz. `root`: run directories go below it. A run whose record has the same key (settings,
    data, code) is left as it is; a killed job goes on from its checkpoint to the same bits (on a CPU).
    """
    corpus = load(prepared)
    keys = {replica: job.key(replica, corpus.sha256) for replica in job.replicas}
    pending = [r for r in job.replicas if not is_finished(_directory(job, root, r), keys[r])]
    if pending:
        job_key = hashlib.sha256("".join(sorted(keys.values())).encode()).hexdigest()
        store = CheckpointStore(checkpoints, job_key)
        session = _Session(job, pending, part(corpus, job.data), keys, root, torch.device(device), say)
        session.resume(store)
        session.run(store, checkpoint_seconds)
        store.clear()
    runs = [read_run(_directory(job, root, r)) for r in job.replicas]
    _write_summaries(runs, root)
    return runs


def _write_summaries(runs: Sequence[Run], root: Path) -> None:
    """`setting.json` in each setting's folder: what its runs came to. Its date says when the setting was done."""
    for setting in {run.setting for run in runs}:
        mine = [run for run in runs if run.setting == setting]
        lines = [{"seed": r.seed, "status": r.status, "key": r.key, "best": r.best} for r in mine]
        summary = {"corpus": mine[0].corpus, "setting": setting, "runs": lines}
        path = run_path(root, mine[0].corpus, mine[0].method, mine[0].value, 0).parent / "setting.json"
        if not path.exists() or json.loads(path.read_text(encoding="utf-8")) != summary:
            write_json(path, summary)


def is_finished(directory: Path, key: str) -> bool:
    """Whether the directory holds the record of exactly this run."""
    try:
        run = read_run(directory)
    except InputError:
        return False
    return run.key == key and run.status != "failed"


def _directory(job: Job, root: Path, replica: Replica) -> Path:
    return run_path(root, job.corpus, replica.method, replica.value, replica.seed)


class _Session:
    """A job under way: engine, progress of every active run, and the sums of the current epoch."""

    def __init__(
        self,
        job: Job,
        replicas: Sequence[Replica],
        corpus: Corpus,
        keys: dict[Replica, str],
        root: Path,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self.job, self.corpus, self.keys, self.root, self.device, self.say = (
            job,
            corpus,
            keys,
            root,
            device,
            say,
        )
        self.started, self.clock = datetime.now(UTC), time.monotonic()
        self.together = len(replicas)
        self.epoch, self.chunk, self.steps, self.seconds = 1, 0, 0, 0.0
        self.engine = Engine(corpus, job.model, replicas, job.training.batch_size, device)
        self.streams = {
            split: evaluation_stream(corpus, split, job.training.batch_size, job.training.bptt_steps, device)
            for split in ("valid", "test")
        }
        length = len(self._training_stream())
        self.trace = Trace(len(replicas), job.training.trace_every, job.training.epochs * length, device)
        self._reset_sums()
        spectra = self.engine.singular_values()
        self.progress = [
            Progress(
                replica=r,
                rate=LearningRate(job.training.schedule, r.learning_rate),
                best_weights=self.engine.model.weights_of(i),
                initial_spectrum=spectra[i],
            )
            for i, r in enumerate(replicas)
        ]

    def _training_stream(self) -> Any:
        training, seeds = self.job.training, [r.seed for r in self.engine.replicas]
        return training_stream(
            self.corpus, seeds, self.epoch, training.batch_size, training.bptt_steps, self.device
        )

    def _reset_sums(self) -> None:
        zeros = torch.zeros(len(self.engine.replicas), device=self.device)
        self.sums = {
            "loss": zeros,
            "norm": zeros.clone(),
            "norm_max": zeros.clone(),
            "diverged_at": zeros.clone(),
        }
        self.count = 0.0

    def run(self, store: CheckpointStore, checkpoint_seconds: float) -> None:
        """Epochs until every run has ended."""
        saved = time.monotonic()
        with stop_on_signal() as stop:
            while self.progress:
                stream = self._training_stream()
                if self.chunk == 0:
                    self.engine.start_epoch()
                while self.chunk < len(stream):
                    self._step(stream)
                    if stop or time.monotonic() - saved > checkpoint_seconds:
                        store.save(self.state_dict())
                        saved = time.monotonic()
                        if stop:
                            raise Preempted(
                                f"stopped at epoch {self.epoch}, step {self.steps}; checkpoint written"
                            )
                self._finish_epoch()

    def _step(self, stream: Any) -> None:
        chunk = stream.chunk(self.chunk)
        loss, norm = self.engine.step(chunk)
        self.chunk += 1
        self.steps += 1
        sums, sigma = self.sums, self.engine.sigma_max
        sums["loss"] += loss
        sums["norm"] += norm
        sums["norm_max"] = torch.maximum(sums["norm_max"], norm)
        bad = ~(loss.isfinite() & norm.isfinite() & sigma.isfinite())
        sums["diverged_at"] = torch.where(bad & (sums["diverged_at"] == 0), self.steps, sums["diverged_at"])
        self.count += chunk.count
        self.trace.add(norm, sigma)
        if self.trace.due(self.steps):
            self.trace.close(self.steps, self.epoch, self.engine.spectral_radius())

    def _finish_epoch(self) -> None:
        """Validate, write the epoch down, and take the runs that have ended out of the engine."""
        steps_in_epoch, self.chunk = self.chunk, 0
        valid_loss = evaluate(self.engine.model, self.streams["valid"])
        radius = self.engine.spectral_radius()
        seconds = self._elapsed()
        going_on: list[int] = []
        ended: dict[int, dict[str, Any] | None] = {}  # why it diverged, or None
        for i, progress in enumerate(self.progress):
            diverged_at = int(self.sums["diverged_at"][i])
            if diverged_at or not valid_loss[i].isfinite():
                reason = (
                    "loss, gradient or weight not finite" if diverged_at else "validation loss not finite"
                )
                ended[i] = {"epoch": self.epoch, "step": diverged_at or self.steps, "reason": reason}
                continue
            row = {
                "epoch": self.epoch,
                "learning_rate": progress.rate.rate,
                "train_loss": float(self.sums["loss"][i]) / self.count,
                "valid_loss": float(valid_loss[i]),
                "valid_metric": metric(self.corpus.kind, float(valid_loss[i])),
                "grad_norm_mean": float(self.sums["norm"][i]) / steps_in_epoch,
                "grad_norm_max": float(self.sums["norm_max"][i]),
                "sigma_max": float(self.engine.sigma_max[i]),
                "saturated": float(self.engine.saturated[i]),
                "spectral_radius": float(radius[i]),
                "projections_done": float(self.engine.projected[i]),
                "projections_skipped": float(self.engine.skipped[i]),
                "seconds": seconds - sum(r["seconds"] for r in progress.history),
            }
            more = progress.finish_epoch(row, self.engine.model.weights_of(i))
            self.engine.rate[i] = progress.rate.rate
            if more and self.epoch < self.job.training.epochs:
                going_on.append(i)
            else:
                ended[i] = None
        self._report(valid_loss, going_on)
        self._write(ended)
        self.progress = [self.progress[i] for i in going_on]
        if ended and going_on:
            self.engine.keep(going_on)
            self.trace.keep(going_on)
        self.epoch += 1
        self._reset_sums()

    def _report(self, valid_loss: Tensor, going_on: Sequence[int]) -> None:
        best = min((p.best()["valid"] for p in self.progress if p.best_epoch), default=float("nan"))
        left = (self.job.training.epochs - self.epoch) * self._elapsed() / self.epoch
        self.say(
            f"{self.job.corpus} epoch {self.epoch}/{self.job.training.epochs}, {len(going_on)} of {self.together} runs "
            f"going on, best validation {best:.4g}, at most {left:.0f} s left"
        )

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.clock

    def _write(self, ended: dict[int, dict[str, Any] | None]) -> None:
        if not ended:
            return
        indices = list(ended)
        tests = self._test_losses(indices)
        spectra = self.engine.singular_values()
        baseline = baseline_loss(self.corpus, "valid")
        for i, test in zip(indices, tests, strict=True):
            progress, diverged = self.progress[i], ended[i]
            best, final = progress.best(), progress.final()
            if diverged is None and final["valid_loss"] >= baseline:
                reason = f"final validation loss no better than {baseline:.4f}, the loss of the corpus' frequencies"
                diverged = {"epoch": self.epoch, "step": self.steps, "reason": reason}
            for figures, loss in ((best, test[0]), (final, test[1])):
                if figures and diverged is None:
                    figures |= {"test_loss": loss, "test": metric(self.corpus.kind, loss)}
            rows = self.trace.rows[i]
            if diverged is not None:
                rows = [r for r in rows if r["step"] < diverged["step"] + self.trace.every]
            run = replace(
                self._record(progress.replica),
                status="finished" if diverged is None else "diverged",
                best=best,
                final=final,
                diverged=diverged,
                spectrum={"initial": progress.initial_spectrum, "final": spectra[i]},
            )
            weights = progress.best_weights
            write_run(_directory(self.job, self.root, progress.replica), run, progress.history, rows, weights)

    def _test_losses(self, indices: Sequence[int]) -> list[tuple[float, float]]:
        """Test loss with the best and with the final weights of these runs."""
        m = self.job.model
        shape = (width(self.corpus), m.hidden_size, m.num_layers)
        model = ReplicatedModel(self.corpus.kind, *shape, m.input_scale, 2 * len(indices))
        for at, i in enumerate(indices):
            model.set_weights(2 * at, self.progress[i].best_weights)
            model.set_weights(2 * at + 1, self.engine.model.weights_of(i))
        losses = evaluate(model.to(self.device), self.streams["test"]).view(-1, 2).tolist()
        return [(best, final) for best, final in losses]

    def _record(self, replica: Replica) -> Run:
        return Run(
            corpus=self.job.corpus,
            method=replica.method,
            value=replica.value,
            seed=replica.seed,
            scale=self.job.scale,
            status="failed",
            metric="perplexity" if self.corpus.kind == "words" else "nll",
            settings=self.job.settings() | {"learning_rate": replica.learning_rate},
            key=self.keys[replica],
            data_sha256=self.corpus.sha256,
            git_commit=environment.git_commit(),
            versions=environment.versions(),
            host=environment.host(),
            device=environment.device_name(self.device),
            threads=torch.get_num_threads(),
            started=self.started.isoformat(timespec="seconds"),
            wall_seconds=round(self._elapsed(), 3),
            replicas=self.together,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed session needs."""
        return {
            "position": [self.epoch, self.chunk, self.steps, self.count, self._elapsed(), self.together],
            "started": self.started.isoformat(),
            "engine": self.engine.state_dict(),
            "progress": [p.state_dict() for p in self.progress],
            "sums": self.sums,
            "trace": {
                "rows": self.trace.rows,
                "grad_norm": self.trace.grad_norm,
                "sigma_max": self.trace.sigma_max,
            },
        }

    def resume(self, store: CheckpointStore) -> None:
        """Go on from the store's newest intact checkpoint, if there is one."""
        state, complaints = store.load()
        for line in complaints:
            self.say(line)
        if state is None:
            return
        self.progress = [Progress.from_state_dict(p) for p in state["progress"]]
        replicas = [p.replica for p in self.progress]
        self.engine = Engine(self.corpus, self.job.model, replicas, self.job.training.batch_size, self.device)
        self.engine.load_state_dict(state["engine"])
        self.epoch, self.chunk, self.steps, self.count, self.seconds, self.together = state["position"]
        self.started = datetime.fromisoformat(state["started"])
        self.sums = {name: value.to(self.device) for name, value in state["sums"].items()}
        self.trace.rows = state["trace"]["rows"]
        self.trace.grad_norm = state["trace"]["grad_norm"].to(self.device)
        self.trace.sigma_max = state["trace"]["sigma_max"].to(self.device)
        self.say(f"{self.job.corpus}: resumed at epoch {self.epoch}, step {self.steps}")
