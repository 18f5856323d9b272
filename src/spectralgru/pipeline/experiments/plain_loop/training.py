"""A run of the plain loop, from its first step to its record; schedule, scores and failures are as in the engine."""

import copy
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spectralgru.pipeline.experiments.plain_loop.job import PlainJob
from spectralgru.pipeline.experiments.plain_loop.loop import PlainModel, evaluate, gradient_norm, step
from spectralgru.pipeline.experiments.plain_loop.rules import OPTIMIZERS, rule
from spectralgru.records import Run, is_finished, read_run
from spectralgru.spectral import jacobian_at_origin, spectral_radius
from spectralgru.training.batches import NoteStream, WordStream, evaluation_stream, training_stream
from spectralgru.training.data.dataset import Corpus
from spectralgru.training.data.loading import subset
from spectralgru.training.descent import LONGEST_UPDATE
from spectralgru.training.epoch import NOT_FINITE, NOT_VALID, Divergence, EpochCounters
from spectralgru.training.progress import Progress
from spectralgru.training.run_writer import Ending, Writer
from spectralgru.training.schedule import LearningRate
from spectralgru.training.settings import Replica
from spectralgru.training.trace import Trace

NAN = float("nan")


def train(job: PlainJob, replica: Replica, corpus: Corpus, root: Path) -> Run:
    """Train one run on the CPU and write its run directory below `root`; a finished one is left as it is.

    There are no checkpoints: an interrupted run starts from the beginning.
    """
    writer = Writer(job, root, {replica: job.key(replica, corpus.sha256)}, corpus, torch.device("cpu"))
    directory = writer.directory(replica)
    if not is_finished(directory, writer.keys[replica]):
        _PlainRun(job, replica, subset(corpus, job.data), writer).run()
    return read_run(directory)


class _PlainRun:
    """A run in progress. Its trace has sigma_1 of the last step of each interval; the engine's has the maximum."""

    def __init__(self, job: PlainJob, replica: Replica, corpus: Corpus, writer: Writer) -> None:
        torch.manual_seed(replica.seed)
        self.job, self.replica, self.corpus, self.writer = job, replica, corpus, writer
        self.begin = time.monotonic()
        self.model = PlainModel(corpus, job.model, replica.seed, job.cell)
        self.rule = rule(self.model, replica.method, replica.value, job.clip, job.gates)
        self.optimizer = OPTIMIZERS[job.optimizer](self.model.parameters(), lr=replica.learning_rate)
        rate = LearningRate(job.training.schedule, replica.learning_rate)
        self.progress = Progress(replica, rate, _weights(self.model), _spectrum(self.model))
        total = job.training.epochs * len(self._stream(1))
        self.trace = Trace(1, job.training.trace_every, total, torch.device("cpu"))
        self.steps = 0

    def _stream(self, epoch: int) -> WordStream | NoteStream:
        t = self.job.training
        return training_stream(
            self.corpus, [self.replica.seed], epoch, t.batch_size, t.bptt_steps, torch.device("cpu")
        )

    def _held_out(self, split: Any) -> float:
        t = self.job.training
        stream = evaluation_stream(self.corpus, split, t.batch_size, t.bptt_steps, torch.device("cpu"))
        return evaluate(self.model, stream)

    def run(self) -> None:
        """Train epochs until the run has ended, then write its record."""
        divergence, more, best = None, True, self.model.state_dict()
        while more and divergence is None:
            epoch = len(self.progress.history) + 1
            counters = EpochCounters.begin(1, dtype=torch.float64)
            divergence = self._epoch(epoch, counters)
            if divergence is None:
                more = self.progress.finish_epoch(self._row(epoch, counters), partial(_weights, self.model))
                more &= epoch < self.job.training.epochs
                if self.progress.best_epoch == epoch:
                    best = copy.deepcopy(self.model.state_dict())
                for group in self.optimizer.param_groups:
                    group["lr"] = self.progress.rate.rate
                self.writer.write_history(self.progress)
        self._write(divergence, best)

    def _epoch(self, epoch: int, counters: EpochCounters) -> Divergence | None:
        """Train an epoch; returns its divergence, if there is one."""
        stream, state = self._stream(epoch), self.model.initial_state(self.job.training.batch_size)
        self.epoch_begin = time.monotonic()
        for index in range(len(stream)):
            chunk = stream.chunk(index)
            loss, norm, state = step(self.model, self.optimizer, self.rule, chunk, state)
            self.steps += 1
            due = self.trace.due(self.steps)
            lost = not (loss + norm).isfinite() or self._is_lost(float(norm))
            sigma, radius = self._spectral() if due and not lost else (torch.zeros(1), torch.zeros(1))
            counters.add(loss, norm, sigma, self.steps, chunk.count)
            if not lost:
                self.trace.add(norm[None], sigma)
                if due:
                    self.trace.close(self.steps, epoch, radius)
            if lost or not sigma.isfinite():
                return self._end(epoch, norm, NOT_FINITE)
        self.valid_loss = self._held_out("valid")
        return None if math.isfinite(self.valid_loss) else self._end(epoch, norm, NOT_VALID)

    def _row(self, epoch: int, counters: EpochCounters) -> dict[str, float]:
        sigma, radius = self._spectral()
        return {
            "epoch": epoch,
            "learning_rate": self.progress.rate.rate,
            **counters.row(0, self.corpus.kind, self.valid_loss),
            "sigma_max": float(sigma),
            "saturated": NAN,
            "spectral_radius": float(radius),
            "projections_done": NAN,
            "projections_skipped": NAN,
            "seconds": time.monotonic() - self.epoch_begin,
        }

    def _is_lost(self, norm: float) -> bool:
        rate = self.progress.rate.rate
        if self.job.optimizer != "SGD" or rate * norm < LONGEST_UPDATE:
            return False
        return rate * float(gradient_norm(self.model)) >= LONGEST_UPDATE  # as clipped

    def _end(self, epoch: int, norm: Tensor, reason: str) -> Divergence:
        if not self.trace.rows[0] or self.trace.rows[0][-1]["step"] < self.steps:
            sigma, radius = self._spectral()
            self.trace.add(norm[None], sigma)
            self.trace.close(self.steps, epoch, radius)
        return Divergence(epoch, self.steps, reason)

    @torch.no_grad()
    def _spectral(self) -> tuple[Tensor, Tensor]:
        """sigma_1(W_hh) and |lambda_1(J)|, largest over layers, [1] each; NaN where not finite.

        Without biases, the J of an LSTM is the same function of W_hg: docs/engine.md.
        """
        self._refresh()
        weights = torch.stack([self.model.recurrent(layer) for layer in range(self.model.num_layers)])
        if not weights.isfinite().all():
            return torch.full((1,), NAN), torch.full((1,), NAN)
        sigma = torch.linalg.matrix_norm(weights.double(), 2).amax()
        return sigma[None].float(), spectral_radius(jacobian_at_origin(weights)).amax()[None]

    def _refresh(self) -> None:
        self.model.eval()  # so that power iterations do not advance
        self.model.compute_weights()
        self.model.train()

    def _write(self, divergence: Divergence | None, best_state: dict[str, Any]) -> None:
        spectrum, last, best = _spectrum(self.model), NAN, NAN
        if divergence is None:
            last = self._held_out("test")
            self.model.load_state_dict(best_state)
            best = self._held_out("test")
        seconds = time.monotonic() - self.begin
        end = Ending(self.steps, divergence, self.trace.rows[0], spectrum, seconds)
        self.writer.write(self.progress, end, (best, last))


@torch.no_grad()
def _weights(model: PlainModel) -> dict[str, Tensor]:
    """Copies, named and laid out as the engine's; those of an LSTM begin with `lstm.`."""
    stack = "lstm" if model.states == 2 else "gru"
    tensors = {
        "input.weight": model.input.weight if model.words else model.input.weight.T,
        "output.weight": model.output.weight,
        "output.bias": model.output.bias,
    }
    for layer in range(model.num_layers):
        for name in (f"weight_ih_l{layer}", f"weight_hh_l{layer}"):
            tensors[f"{stack}.{name}"] = getattr(model.rnn, name)
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _spectrum(model: PlainModel) -> list[list[float]]:
    """Singular values of every layer's candidate in descending order; zero where it is not finite."""
    weights = [model.recurrent(layer).nan_to_num(0, 0, 0) for layer in range(model.num_layers)]
    return [torch.linalg.svdvals(w).tolist() for w in weights]
