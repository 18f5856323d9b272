"""A job in progress: epochs, measurements and checkpoints until every run has ended."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spectralgru.training.batches import Chunk, NoteStream, WordStream, evaluation_stream, training_stream
from spectralgru.training.checkpoint import CheckpointStore, of_run, on, save
from spectralgru.training.data.dataset import Corpus
from spectralgru.training.distributed import Ranks
from spectralgru.training.engine import Engine
from spectralgru.training.epoch import NOT_FINITE, NOT_VALID, Divergence, EpochCounters
from spectralgru.training.evaluate import evaluate
from spectralgru.training.progress import Progress
from spectralgru.training.run_writer import Ending, Writer
from spectralgru.training.schedule import LearningRate
from spectralgru.training.settings import Job, Replica
from spectralgru.training.stopping import Preempted, stop_on_signal
from spectralgru.training.trace import Trace

# The largest share of the time that checkpoints may take, and also histories.
WRITING_SHARE = 0.02


class Session:
    """The unfinished runs of a job, from a checkpoint's state or from the start. Every rank has a session."""

    def __init__(
        self,
        job: Job,
        replicas: Sequence[Replica],
        corpus: Corpus,
        writer: Writer,
        device: torch.device,
        say: Callable[[str], None],
        ranks: Ranks,
        state: dict[str, Any] | None,
    ) -> None:
        self.job, self.corpus, self.writer, self.device = job, corpus, writer, device
        self.say, self.ranks = say, ranks
        self.clock = self.show_at = time.monotonic()
        self.total, self.epoch, self.steps = len(replicas), 1, 0
        training = job.training
        options = (training.precision, training.gates)
        self.engine = Engine(corpus, job.model, replicas, training.batch_size, device, ranks, *options)
        self.valid, self.test = (
            evaluation_stream(corpus, split, training.batch_size, training.bptt_steps, device)
            for split in ("valid", "test")
        )
        total_steps = training.epochs * len(self._training_stream())
        self.trace = Trace(len(replicas), training.trace_every, total_steps, device)
        self.counters = EpochCounters.begin(len(replicas), device)
        if state is not None:
            self._load_state_dict(state)
            say(f"{job.corpus}: resumed at epoch {self.epoch}, step {self.steps}")
            return
        self.progress = self._new_progress(replicas)
        self._show_histories()

    def _new_progress(self, replicas: Sequence[Replica]) -> list[Progress]:
        spectra, schedule = self.engine.singular_values(), self.job.training.schedule
        return [
            Progress(
                *(r, LearningRate(schedule, r.learning_rate), self.engine.model.weights_of(i), spectra[i]),
                replicas=len(replicas),
            )
            for i, r in enumerate(replicas)
        ]

    def _training_stream(self) -> WordStream | NoteStream:
        training, seeds = self.job.training, [r.seed for r in self.engine.replicas]
        return training_stream(
            self.corpus, seeds, self.epoch, training.batch_size, training.bptt_steps, self.device
        )

    def run(self, stores: Mapping[Replica, CheckpointStore], checkpoint_seconds: float) -> None:
        """Train until every run has ended, with a checkpoint every `checkpoint_seconds` (0: after every step).

        Checkpoints are rarer if they would take more than WRITING_SHARE of the time. After SIGTERM or SIGINT to any
        rank, writes a checkpoint and raises Preempted.
        """
        saved, pause = time.monotonic(), checkpoint_seconds
        with stop_on_signal() as stop:
            while self.progress:
                stream, runs = self._training_stream(), len(self.progress)
                if self.counters.steps == 0:
                    self.engine.start_epoch()
                while self.counters.steps < len(stream) and len(self.progress) == runs > 0:
                    self._step(stream)
                    late = self.ranks.first and time.monotonic() - saved > pause
                    stopped, due = self.ranks.any(bool(stop), late)
                    if stopped or due:
                        begin = time.monotonic()
                        self._save(stores)
                        saved = time.monotonic()
                        pause = max(checkpoint_seconds, (saved - begin) / WRITING_SHARE)
                        pause *= checkpoint_seconds > 0
                    if stopped:
                        self._show_histories()
                        place = f"epoch {self.epoch}, step {self.steps}"
                        raise Preempted(f"stopped at {place}; checkpoint written")
                if self.counters.steps == len(stream) and self.progress:
                    self._finish_epoch()

    def _save(self, stores: Mapping[Replica, CheckpointStore]) -> None:
        self.ranks.check_same(self.engine.model.parameters())
        state = self.state_dict()
        runs = enumerate(self.engine.replicas)
        self.ranks.agreed(lambda: save((stores[replica], of_run(state, i)) for i, replica in runs))

    def _step(self, stream: WordStream | NoteStream) -> None:
        chunk = stream.chunk(self.counters.steps)
        loss, norm = self.engine.step(chunk)
        self.steps += 1
        sigma = self.engine.projector.sigma_max
        self.counters.add(loss, norm, sigma, self.steps, chunk.count)
        self.trace.add(norm, sigma)
        if self.trace.due(self.steps):
            self._close_interval(chunk)
            self._end_diverged()

    def _close_interval(self, chunk: Chunk | None = None, runs: Sequence[int] | None = None) -> None:
        """`chunk`: of the last step; None: it is read again."""
        chunk = chunk or self._training_stream().chunk(self.counters.steps - 1)
        measured = self.engine.spectral_radius(), self.engine.growth(chunk)
        self.trace.close(self.steps, self.epoch, *measured, runs)

    def _end_diverged(self) -> None:
        """Write the records of runs that have diverged in this epoch and remove the runs from the engine."""
        steps = [int(step) for step in self.counters.diverged_at.tolist()]
        if any(steps):
            ended = {i: Divergence(self.epoch, step, NOT_FINITE) for i, step in enumerate(steps) if step}
            if not self.trace.due(self.steps):  # their last interval ends with the epoch
                self._close_interval(runs=list(ended))
            self._write(ended)
            self._keep([i for i in range(len(steps)) if i not in ended])

    def _keep(self, runs: Sequence[int]) -> None:
        self.progress = [self.progress[i] for i in runs]
        if runs:
            self.engine.keep(runs)
            self.trace.keep(runs)
            self.counters = self.counters.keep(runs)

    def _finish_epoch(self) -> None:
        """Validate, record the epoch, and remove finished runs from the engine."""
        self._end_diverged()
        if not self.progress:
            return
        self.ranks.check_same(self.engine.model.parameters())
        valid_loss = evaluate(self.engine.model, self.valid, self.ranks)
        radius = self.engine.spectral_radius()
        going_on: list[int] = []
        ended: dict[int, Divergence | None] = {}  # why it diverged, or None
        for i, progress in enumerate(self.progress):
            if not valid_loss[i].isfinite():
                ended[i] = Divergence(self.epoch, self.steps, NOT_VALID)
                continue
            row = self._row(i, progress, float(valid_loss[i]), float(radius[i]))
            more = progress.finish_epoch(row, partial(self.engine.model.weights_of, i))
            self.engine.rate[i] = progress.rate.rate
            if more and self.epoch < self.job.training.epochs:
                going_on.append(i)
            else:
                ended[i] = None
        self._report(going_on)
        if ended:
            if not self.trace.due(self.steps):  # the last interval may be a short one
                self._close_interval(runs=list(ended))
            self._write(ended)
            self._keep(going_on)
        if time.monotonic() >= self.show_at:
            self._show_histories()
        self.epoch += 1
        self.counters = EpochCounters.begin(len(self.progress), self.device)

    def _row(self, i: int, progress: Progress, valid_loss: float, radius: float) -> dict[str, float]:
        projector = self.engine.projector
        return {
            "epoch": self.epoch,
            "learning_rate": progress.rate.rate,
            **self.counters.row(i, self.corpus.kind, valid_loss),
            "sigma_max": float(projector.sigma_max[i]),
            "saturated": float(projector.saturated[i]),
            "spectral_radius": radius,
            "projections_done": float(projector.projected[i]),
            "projections_skipped": float(projector.skipped[i]),
            "seconds": self._elapsed(progress) - sum(r["seconds"] for r in progress.history),
        }

    def _report(self, going_on: Sequence[int]) -> None:
        best = min((p.best()["valid"] for p in self.progress if p.best_epoch), default=float("nan"))
        left = (self.job.training.epochs - self.epoch) * self._elapsed(self.progress[0]) / self.epoch
        self.say(
            f"{self.job.corpus} epoch {self.epoch}/{self.job.training.epochs}, {len(going_on)} of {self.total} runs "
            f"going on, best validation {best:.4g}, at most {left:.0f} s left"
        )

    def _elapsed(self, progress: Progress) -> float:
        """Seconds of training, including those before a resume; unaffected by jumps of the clock."""
        return progress.seconds + time.monotonic() - self.clock

    def _show_histories(self) -> None:
        """Write the history of every run; decides how soon to do so again, by WRITING_SHARE."""
        begin = time.monotonic()
        if self.ranks.first:
            for progress in self.progress:
                self.writer.write_history(progress)
        self.show_at = begin + (time.monotonic() - begin) / WRITING_SHARE

    def _write(self, ended: Mapping[int, Divergence | None]) -> None:
        tests = self._test_losses(list(ended))
        if not self.ranks.first:
            return
        spectra = self.engine.singular_values(list(ended))
        for (i, divergence), test, spectrum in zip(ended.items(), tests, spectra, strict=True):
            progress, rows = self.progress[i], self.trace.rows[i]
            if divergence is not None:  # drop the intervals after the one in which it diverged
                rows = [r for r in rows if r["step"] < divergence.step + self.trace.every]
            end = Ending(self.steps, divergence, rows, spectrum, self._elapsed(progress))
            self.writer.write(progress, end, test)

    def _test_losses(self, indices: Sequence[int]) -> list[tuple[float, float]]:
        """Test loss with the best and with the final weights of these runs."""
        model = self.engine.model
        weights = [w for i in indices for w in (self.progress[i].best_weights, model.weights_of(i))]
        losses: Tensor = evaluate(model.with_weights(weights), self.test, self.ranks)
        return [(best, final) for best, final in losses.view(-1, 2).tolist()]

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed session needs, from all ranks: each must call it. Format: see `checkpoint`."""
        return {
            "position": (self.epoch, self.steps),
            "engine": self.engine.state_dict(),
            "progress": [p.state_dict() | {"seconds": self._elapsed(p)} for p in self.progress],
            "counters": self.counters.state_dict(),
            "trace": {name: getattr(self.trace, name) for name in ("rows", "grad_norm", "sigma_max")},
        }

    def _load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.steps = state["position"]
        self.engine.load_state_dict(state["engine"])
        self.progress = [Progress.from_state_dict(p) for p in state["progress"]]
        self.counters = EpochCounters(**on(state["counters"], self.device))
        for name, value in on(state["trace"], self.device).items():
            setattr(self.trace, name, value)
