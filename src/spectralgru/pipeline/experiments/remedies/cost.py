"""CPU seconds of a training step for several baselines, interleaved so that all see the same load on the machine.

Their order changes from step to step, since what runs before a step decides what is in the caches, and so a tenth of
the step's time.
"""

import random
import time
from collections.abc import Mapping

import torch

from spectralgru.pipeline.experiments.plain_loop.job import PlainJob
from spectralgru.pipeline.experiments.plain_loop.loop import PlainModel, State, step
from spectralgru.pipeline.experiments.plain_loop.rules import OPTIMIZERS, rule
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import Corpus
from spectralgru.training.data.loading import subset
from spectralgru.training.settings import Replica

FIRST = 5  # steps that are not counted


class _Training:
    """A baseline's training in progress."""

    def __init__(self, job: PlainJob, replica: Replica, corpus: Corpus) -> None:
        self.model = PlainModel(corpus, job.model, replica.seed, job.cell)
        self.rule = rule(self.model, replica.method, replica.value, job.clip, job.gates)
        self.optimizer = OPTIMIZERS[job.optimizer](self.model.parameters(), lr=replica.learning_rate)
        self.state: State = self.model.initial_state(job.training.batch_size)
        self.stream = training_stream(
            corpus, [replica.seed], 1, job.training.batch_size, job.training.bptt_steps, torch.device("cpu")
        )

    def seconds(self, index: int) -> float:
        chunk = self.stream.chunk(index % len(self.stream))
        begin = time.process_time()
        *_, self.state = step(self.model, self.optimizer, self.rule, chunk, self.state)
        return time.process_time() - begin


def seconds_per_step(
    jobs: Mapping[str, tuple[PlainJob, Replica]], corpus: Corpus, steps: int
) -> dict[str, list[float]]:
    """CPU seconds (of one thread, if torch has one) of `steps` steps of each training, by its name."""
    trainings = {
        name: _Training(job, replica, subset(corpus, job.data)) for name, (job, replica) in jobs.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    order, generator = list(trainings), random.Random(0)
    for index in range(FIRST + steps):
        for name in order:
            seconds[name].append(trainings[name].seconds(index))
        generator.shuffle(order)
    return {name: times[FIRST:] for name, times in seconds.items()}
