"""A training with timed steps: plain, with the gradient norm, and with each form of the projection."""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from spectralgru.errors import InputError
from spectralgru.pipeline.experiments.cost.truncated import TruncatedProjection
from spectralgru.projection.clip import clip
from spectralgru.setting import number
from spectralgru.training.batches import training_stream
from spectralgru.training.clipping import clip_factor, gradient_norm
from spectralgru.training.data.dataset import Corpus
from spectralgru.training.engine import Engine
from spectralgru.training.projector import MatrixProjector
from spectralgru.training.settings import ModelSettings, Replica


class MeteredProjector(MatrixProjector):
    """Takes the place of the engine's projector on a CPU, for a single constrained run.

    At every step all forms of the projection are applied to the same matrix, but only the engine's own has an effect,
    so that all follow the same trajectory.
    """

    def __init__(self, engine: Engine) -> None:
        replaced, self.descent = engine.projector, engine.descent
        super().__init__(replaced.max_sv, replaced.layers)
        self.load_state_dict(replaced.state_dict())
        self.spent: dict[str, float] = {}  # CPU seconds of the last step
        self.truncated = [TruncatedProjection(float(self.max_sv)) for _ in range(self.layers)]

    def start(self, weights: Sequence[Tensor], moved: Callable[[int], Tensor] | None = None) -> None:
        """See `Projector`; the times go to `spent`."""
        assert moved is not None
        copies = [weight[0].clone() for weight in weights]
        distances = [float(moved(layer)) for layer in range(self.layers)]
        gradients = self.descent.gradients
        threshold = torch.full_like(self.max_sv, float("inf"))
        forms: dict[str, Callable[[], object]] = {
            "clipping": lambda: clip_factor(gradient_norm(gradients), threshold),
            "naive SVD": lambda: [clip(w[None], self.max_sv, "svd").weight for w in copies],
            "truncated SVD": lambda: [
                t.project(w, m) for t, w, m in zip(self.truncated, copies, distances, strict=True)
            ],
            "ours": lambda: super(MeteredProjector, self).start(weights, moved),
        }
        self.spent = {name: seconds(work) for name, work in forms.items()}


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds that the work takes in this process; other programs on the machine do not count."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def metered_steps(
    corpus: Corpus, model: ModelSettings, replica: Replica, lanes: int, bptt_steps: int, warm_up: int
) -> Iterator[dict[str, float]]:
    """Train endlessly; yield the CPU seconds of each method for every step after `warm_up`.

    `none` is the plain step; `clipping` and the projections are what each adds to it. `above` is the number of singular
    values above the bound, all layers. Raises InputError when the training diverges.
    """
    engine, epoch, step = Engine(corpus, model, [replica], lanes, torch.device("cpu")), 0, 0
    while True:
        epoch += 1
        stream = training_stream(corpus, [replica.seed], epoch, lanes, bptt_steps, torch.device("cpu"))
        engine.start_epoch()
        for index in range(len(stream)):
            chunk = stream.chunk(index)
            if step == max(
                0, warm_up - 1
            ):  # a step early: at its first step truncated SVD knows no bounds yet
                engine.projector = metered = MeteredProjector(engine)
            begin = time.process_time()
            try:
                engine.step(chunk)
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                raise InputError(
                    f"{corpus.name}, delta {number(replica.value or 0)}: the training has diverged by step {step + 1}, "
                    "no step after that can be timed; lower its learning_rate, or time fewer steps"
                ) from None
            whole = time.process_time() - begin
            step += 1
            if step <= warm_up:
                continue
            spent = metered.spent
            # The engine computes the norm of every gradient, clipped or not; a plain step would not.
            none = whole - sum(spent.values()) - spent["clipping"]
            yield {"none": none, **spent, "above": float(engine.projector.saturated.sum())}
