"""A training whose steps are timed: without anything, with the gradient's norm, with each form of the projection."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from spectralgru.pipeline.experiments.cost.truncated import TruncatedProjection
from spectralgru.projection.clip import clip
from spectralgru.training.batches import training_stream
from spectralgru.training.clipping import clip_factor, gradient_norm
from spectralgru.training.data.dataset import Corpus
from spectralgru.training.engine import Engine
from spectralgru.training.settings import ModelSettings, Replica

Result = TypeVar("Result")


class MeteredEngine(Engine):
    """The trainer's engine with one constrained run on a CPU.

    After `meter()` every form of the projection is done on the same matrix at every step; the engine's own alone has
    an effect, so all follow one trajectory.
    """

    def __init__(self, corpus: Corpus, model: ModelSettings, replica: Replica, lanes: int) -> None:
        self.spent: dict[str, float] = {}  # CPU seconds of the last step
        self.truncated: list[TruncatedProjection] = []
        super().__init__(corpus, model, [replica], lanes, torch.device("cpu"))

    def meter(self) -> None:
        """Time all steps from now on."""
        self.truncated = [TruncatedProjection(float(self.max_sv)) for _ in range(self.model.num_layers)]

    def _project(self, factor: Tensor | None) -> Tensor:
        if not self.truncated or factor is None:
            return super()._project(factor)
        bound = self.max_sv
        weights = [self.model.recurrent(layer)[0].clone() for layer in range(self.model.num_layers)]
        moved = [float(self._moved(layer, factor)) for layer in range(len(weights))]
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        threshold = torch.full_like(bound, float("inf"))
        self.spent["clipping"], _ = timed(lambda: clip_factor(gradient_norm(gradients), threshold))
        self.spent["naive SVD"], _ = timed(lambda: [clip(w[None], bound, "svd").weight for w in weights])
        self.spent["truncated SVD"], _ = timed(
            lambda: [t.project(w, m) for t, w, m in zip(self.truncated, weights, moved, strict=True)]
        )
        self.spent["ours"], result = timed(lambda: super(MeteredEngine, self)._project(factor))
        return result


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """CPU seconds of this process, and the result: other programs on the machine do not count."""
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def metered_steps(
    corpus: Corpus, model: ModelSettings, replica: Replica, lanes: int, bptt_steps: int, warm_up: int
) -> Iterator[dict[str, float]]:
    """Train without end; for every step after `warm_up` CPU seconds of each method and what was clipped.

    `none` is the step without any; `clipping` and the projections are what they add. `above`: number of singular
    values above the bound, all layers.
    """
    engine, epoch, step = MeteredEngine(corpus, model, replica, lanes), 0, 0
    while True:
        epoch += 1
        stream = training_stream(corpus, [replica.seed], epoch, lanes, bptt_steps, torch.device("cpu"))
        engine.start_epoch()
        for index in range(len(stream)):
            chunk = stream.chunk(index)
            if step == max(0, warm_up - 1):  # the first metered step has no bounds to begin with
                engine.meter()
            begin = time.process_time()
            engine.step(chunk)
            whole, spent = time.process_time() - begin, engine.spent
            step += 1
            if step <= warm_up:
                continue
            # The engine takes the norm of every gradient, clipped or not: a plain step would not.
            none = whole - sum(spent.values()) - spent["clipping"]
            yield {"none": none, **spent, "above": float(engine.saturated.sum())}
