"""The replica engine: trains runs that differ in seed, method, value and learning rate together, step by step."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spectralgru.projection import by_products
from spectralgru.projection.tracked import frobenius
from spectralgru.recurrent import fused
from spectralgru.recurrent.dropout import dropout_masks
from spectralgru.spectral import jacobian_at_origin, spectral_radius
from spectralgru.training.batches import Chunk
from spectralgru.training.data.dataset import Corpus
from spectralgru.training.data.loading import width
from spectralgru.training.descent import Descent
from spectralgru.training.distributed import ALONE, Ranks
from spectralgru.training.graph import CapturedStep
from spectralgru.training.growth import growth
from spectralgru.training.models import ReplicatedModel, initial_weights
from spectralgru.training.projector import BatchedProjector, MatrixProjector, Projector
from spectralgru.training.settings import ModelSettings, Precision, Replica

INFINITY = float("inf")
# Units are added up to a multiple: a GPU multiplies fastest where rows are multiples of 16 bytes, and Triton sees that
# they are only where the number of units is a multiple of 16. 650 and 200 are not.
MULTIPLE = {"cuda": 16}


class Engine:
    """R runs on one device. The random numbers of a run depend on its own seed alone, not on the other runs."""

    def __init__(
        self,
        corpus: Corpus,
        model: ModelSettings,
        replicas: Sequence[Replica],
        lanes: int,
        device: torch.device,
        ranks: Ranks = ALONE,
        precision: Precision = "float32",
        gates: float | None = None,
    ) -> None:
        """`lanes`: of the whole batch; a rank keeps the state of its own ones. `gates`: see TrainingSettings."""
        self.replicas = list(replicas)
        self.lanes, self.ranks, self.share = lanes, ranks, ranks.share(lanes)
        self.dropout = model.dropout
        self.device, self.precision = device, precision
        shape = (width(corpus), model.hidden_size, model.num_layers)
        multiple = MULTIPLE.get(device.type, 1)
        self.model = ReplicatedModel(corpus.kind, *shape, model.input_scale, len(replicas), multiple)
        for seed in {replica.seed for replica in self.replicas}:
            weights = dict(initial_weights(*shape, model.init_scale, seed))
            for index, replica in enumerate(self.replicas):
                if replica.seed == seed:
                    self.model.set_weights(index, weights)
        self.model.to(device)
        self.descent = Descent(self.model, lanes, ranks, precision)
        # Steps whose dropout masks have been drawn.
        self.drawn = torch.zeros(1, dtype=torch.int64, device=device)
        self.fused = device.type == "cuda" and fused.AVAILABLE
        max_sv = self._column(
            2 - r.value if r.method == "constraint" and r.value else INFINITY for r in self.replicas
        )
        self.threshold = self._column(
            r.value if r.method == "clipping" and r.value else INFINITY for r in self.replicas
        )
        self.rate = self._column(r.learning_rate for r in self.replicas)
        self.state = self.entered = self.model.initial_state(self.share.stop - self.share.start)
        form = BatchedProjector if device.type == "cuda" else MatrixProjector
        self.projector: Projector = form(max_sv, model.num_layers)
        # Bounds W_hr and W_hz of each layer in constrained runs, if asked for.
        self.gates: Projector | None = None
        if gates is not None and max_sv.isfinite().any():
            bounds = torch.full_like(max_sv, gates).where(max_sv.isfinite(), max_sv)
            self.gates = form(bounds, 2 * model.num_layers)
        with torch.no_grad():
            self._start_projection()
            self._finish_projection()
        self._restart()

    def _restart(self) -> None:
        """To be called after tensors that a step uses have been replaced."""
        self.seeds = torch.tensor([r.seed for r in self.replicas], device=self.device)
        capturable = self.fused and self.ranks.world == 1
        self.captured = CapturedStep(self, self.device) if capturable else None

    def _column(self, values: Iterable[float]) -> Tensor:
        return torch.tensor([float(v) for v in values], device=self.device)

    def start_epoch(self) -> None:
        """Set the state of every lane, and the counters, to zero."""
        self.state = torch.zeros_like(self.state)
        self.projector.start_epoch()

    def step(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """One SGD step on T steps of every lane; returns the summed loss and the gradient norm, both [R].

        The differentiated loss is summed over steps and averaged over lanes, which sets the scale of learning rates and
        thresholds. The norm is that before clipping. The weights of a run that diverges become NaN; the other runs are
        not affected.
        """
        self.entered = self.state.clone()  # a captured step overwrites it
        loss, norm = (self.captured or self.advance)(chunk)
        self._finish_projection()
        return self.ranks.total(loss), norm

    def advance(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """A step as far as it need not wait for the device; the loss is this rank's."""
        masks = self._dropout_masks(*chunk.weights.shape[1:])
        given = chunk, self.state, masks, self.rate, self.threshold
        loss, norm, factor, self.state = self.descent.step(*given)
        with torch.no_grad():
            self._start_projection(factor)
        self.descent.forget()
        return loss, norm

    def _start_projection(self, factor: Tensor | None = None) -> None:
        """`factor` [R]: the weights have just moved by their gradient times this factor; None: unknown."""
        for projector, blocks in self._projectors():
            moved = None if factor is None else partial(self._moved, blocks, factor)
            projector.start(self._matrices(blocks), moved)

    def _finish_projection(self) -> None:
        for projector, blocks in self._projectors():
            projector.finish(self._matrices(blocks))

    def _projectors(self) -> list[tuple[Projector, Sequence[int]]]:
        """Each projector with the blocks of the recurrent weights (0: W_hr, 1: W_hz, 2: W_hh) that it projects."""
        return [(self.projector, (2,)), *([] if self.gates is None else [(self.gates, (0, 1))])]

    def _matrices(self, blocks: Sequence[int], gradient: bool = False) -> list[Tensor]:
        """These blocks of every layer's recurrent weight, or of its gradient: [R, H, H] each."""
        names = [f"gru.weight_hh_l{layer}" for layer in range(self.model.num_layers)]
        return [self.model.own(name, gradient)[:, block] for name in names for block in blocks]

    def _moved(self, blocks: Sequence[int], factor: Tensor, index: int) -> Tensor:
        """How far (Frobenius) the step moved one of the projected matrices, [R]."""
        return factor * frobenius(self._matrices(blocks, gradient=True)[index])

    def _dropout_masks(self, steps: int, lanes: int) -> list[Tensor] | None:
        """Factors [R, T, B, H] for every layer, drawn for the whole batch and then cut to this rank's lanes."""
        if self.dropout == 0:
            return None
        shape = (self.model.num_layers + 1, steps, lanes, self.model.hidden_size)
        masks = dropout_masks(self.seeds, self.drawn, shape, 1 - self.dropout)
        return list(self.model.padded(masks[:, :, :, self.share]).unbind(1))

    def spectral_radius(self) -> Tensor:
        """|lambda_1(J)| at the fixed point h* = 0, maximum over layers, [R]; NaN where W_hh is not finite."""
        layers = []
        for layer in range(self.model.num_layers):
            jacobian = jacobian_at_origin(self.model.recurrent(layer))
            finite = jacobian.isfinite().all(-1).all(-1)
            measure = by_products.spectral_radius if jacobian.is_cuda else spectral_radius
            radius = measure(torch.where(finite[:, None, None], jacobian, 0.0))
            layers.append(torch.where(finite, radius, torch.nan))
        return torch.stack(layers).amax(0)

    def growth(self, chunk: Chunk) -> Tensor:
        """Growth along the `chunk` of the last step with the present weights: maximum over lanes and layers, [R]."""
        of_lanes = growth(self.model, chunk.of_lanes(self.share), self.entered)
        largest: Tensor = self.ranks.all_lanes(of_lanes.unsqueeze(-1), self.lanes).amax((1, 2, 3))
        return largest

    def singular_values(self, replicas: Sequence[int] | None = None) -> list[list[list[float]]]:
        """Singular values of W_hh of `replicas` (all), descending: [R][L][H]; zero where W_hh is not finite.

        Computed in float64 on the host, and once for equal matrices: at the start the runs of a seed share theirs.
        """
        index = list(range(len(self.replicas)) if replicas is None else replicas)
        layers = [self.model.recurrent(layer)[index].cpu() for layer in range(self.model.num_layers)]
        weights = torch.stack(layers, 1).nan_to_num(0, 0, 0).double()
        distinct, which = torch.unique(weights.flatten(0, 1), dim=0, return_inverse=True)
        values: list[list[list[float]]] = (
            torch.linalg.svdvals(distinct)[which].view(weights.shape[:3]).tolist()
        )
        return values

    def keep(self, replicas: Sequence[int]) -> None:
        """Drop all replicas but these."""
        index = list(replicas)
        self.replicas = [self.replicas[r] for r in index]
        del self.descent
        self.model.keep(index)
        self.descent = Descent(self.model, self.lanes, self.ranks, self.precision)
        for projector, _ in self._projectors():
            projector.keep(index)
        for name in ("threshold", "rate", "state", "entered"):
            setattr(self, name, getattr(self, name)[index])
        self._restart()

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes during training, from all ranks: each must call it. Format: see `checkpoint`."""
        weights = [self.model.weights_of(replica) for replica in range(len(self.replicas))]
        hidden = self.model.hidden_size
        return {
            "model": {name: torch.stack([of_run[name] for of_run in weights]) for name in weights[0]},
            "projector": self.projector.state_dict(),
            "gates": {} if self.gates is None else self.gates.state_dict(),
            "rate": self.rate,
            "drawn": (self.drawn,),
            "state": self.ranks.all_lanes(self.state, self.lanes)[..., :hidden],
            "entered": self.ranks.all_lanes(self.entered, self.lanes)[..., :hidden],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the `state_dict()` of an engine with the same replicas."""
        for replica in range(len(self.replicas)):
            self.model.set_weights(replica, {name: w[replica] for name, w in state["model"].items()})
        self.projector.load_state_dict(state["projector"])
        if self.gates is not None:
            self.gates.load_state_dict(state["gates"])
        self.drawn.copy_(state["drawn"][0])
        self.rate = state["rate"].to(self.device)
        for name in ("state", "entered"):
            setattr(self, name, self.model.padded(state[name].to(self.device)[:, :, self.share]))
        self._restart()
