"""The replica engine: runs that differ in seed, method, value and learning rate advance together, step by step."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from spectralgru.projection import batched
from spectralgru.recurrent import fused
from spectralgru.spectral import SpectralProjection, jacobian_at_origin, spectral_radius
from spectralgru.training.batches import Chunk
from spectralgru.training.clipping import clip_factor, gradient_norm
from spectralgru.training.data.dataset import Corpus
from spectralgru.training.data.loading import width
from spectralgru.training.distributed import ALONE, Ranks
from spectralgru.training.graph import CapturedStep
from spectralgru.training.models import ReplicatedModel, initial_weights
from spectralgru.training.settings import ModelSettings, Replica

INFINITY = float("inf")
# After a longer update nothing is trained any more, and squares of weights would leave float32: the run is lost.
LONGEST_UPDATE = 1e9


class Engine:
    """R runs on one device. Everything random in a run comes from its own seed, never from its company."""

    def __init__(
        self,
        corpus: Corpus,
        model: ModelSettings,
        replicas: Sequence[Replica],
        lanes: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        """`lanes`: of the whole batch; a rank keeps the state of its own."""
        self.replicas = list(replicas)
        self.lanes, self.ranks, self.part = lanes, ranks, ranks.part(lanes)
        self.dropout = model.dropout
        self.device = device
        shape = (width(corpus), model.hidden_size, model.num_layers)
        self.model = ReplicatedModel(corpus.kind, *shape, model.input_scale, len(self.replicas))
        for seed in {replica.seed for replica in self.replicas}:
            weights = dict(initial_weights(*shape, model.init_scale, seed))
            for index, replica in enumerate(self.replicas):
                if replica.seed == seed:
                    self.model.set_weights(index, weights)
        self.model.to(device)
        self.network = ranks.parallel(self.model)
        self.generators = [torch.Generator(device).manual_seed(replica.seed) for replica in self.replicas]
        # Dropout masks come from the generators or, of `drawn` that came before, from a kernel.
        self.drawn = torch.zeros(1, dtype=torch.int64, device=device)
        self.fused = device.type == "cuda" and fused.AVAILABLE
        self.max_sv = self._column(
            2 - r.value if r.method == "constraint" and r.value else INFINITY for r in self.replicas
        )
        self.threshold = self._column(
            r.value if r.method == "clipping" and r.value else INFINITY for r in self.replicas
        )
        self.rate = self._column(r.learning_rate for r in self.replicas)
        self.state = self.model.initial_state(self.part.stop - self.part.start)
        self.projections: list[SpectralProjection] = []
        self.together: batched.BatchedProjection | None = None  # all layers', on a GPU
        if device.type == "cuda":
            self.together = batched.BatchedProjection(self.max_sv.repeat(model.num_layers))
        else:
            self.projections = [SpectralProjection(self.max_sv) for _ in range(model.num_layers)]
        self.projected = self._column(0 for _ in self.replicas)  # projections done since `start_epoch`
        self.skipped = self._column(0 for _ in self.replicas)
        self.saturated = self._column(0 for _ in self.replicas)
        self.sigma_max = torch.zeros_like(self.rate)
        with torch.no_grad():
            self.sigma_max = self._project(None)
            self._settle()
        self._restart()

    def _restart(self) -> None:
        """After the tensors of a step have become others."""
        self.seeds = torch.tensor([r.seed for r in self.replicas], device=self.device)
        capturable = self.fused and self.ranks.world == 1
        self.captured = CapturedStep(self, self.device) if capturable else None

    def _column(self, values: Iterable[float]) -> Tensor:
        return torch.tensor([float(v) for v in values], device=self.device)

    def start_epoch(self) -> None:
        """Every lane from the zero state; counters from zero."""
        self.state = torch.zeros_like(self.state)
        self.projected.zero_()
        self.skipped.zero_()

    def step(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """One SGD step on T steps of every lane; returns the summed loss and the gradient norm, both [R].

        The loss that is differentiated is summed over steps and averaged over lanes: learning rates and
        thresholds live on that scale. The norm is the one before clipping. The weights of a run that diverges
        become NaN; the other runs are not touched by it.
        """
        loss, norm = (self.captured or self.advance)(chunk)
        self._settle()
        return self.ranks.total(loss), norm

    def advance(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """A step up to `_settle`, never waiting for the device; the loss is this rank's."""
        masks = self._dropout_masks(*chunk.weights.shape[1:])
        if self.ranks.world > 1:
            chunk = chunk.of_lanes(self.part)
        logits, state = self.network(chunk.inputs, self.state, chunk.starts, masks)
        loss = self.model.loss(logits, chunk.targets, chunk.weights)
        torch.autograd.backward(loss.sum() / self.lanes)
        self.state = state.detach()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = gradient_norm(gradients)
        factor = self.rate * clip_factor(norm, self.threshold)
        factor = factor.masked_fill(~(factor * norm < LONGEST_UPDATE), torch.nan)
        with torch.no_grad():
            for parameter in self.model.parameters():
                assert parameter.grad is not None
                parameter.addcmul_(parameter.grad, factor.view(-1, *[1] * (parameter.ndim - 1)), value=-1)
            self.sigma_max = self._project(factor)
        for parameter in self.model.parameters():
            parameter.grad = None
        return loss.detach(), norm

    def _project(self, factor: Tensor | None) -> Tensor:
        """Project every layer onto sigma_1 <= 2 - delta; returns sigma_1 [R], the largest over layers.

        On a GPU `_settle` finishes it.
        """
        if self.together is not None:
            weight = self._stacked()
            self.together.start(weight)
            self._spread(weight)
            return self.sigma_max
        largest = torch.zeros_like(self.rate)
        self.saturated.zero_()
        for layer, projection in enumerate(self.projections):
            weight = self.model.recurrent(layer)
            report = projection.project_(weight, None if factor is None else self._moved(layer, factor))
            largest = torch.maximum(largest, report.sigma_max.to(largest.dtype))
            self.saturated += report.saturated
            self.projected += report.projected
            self.skipped += ~report.projected & self.max_sv.isfinite()
        return largest

    def _moved(self, layer: int, factor: Tensor) -> Tensor:
        """How far (Frobenius) the step moved the matrices that are projected, [R]."""
        gradient: Tensor = getattr(self.model.gru, f"weight_hh_l{layer}").grad
        candidate = gradient[:, 2 * self.model.hidden_size :]
        moved: Tensor = factor * torch.linalg.matrix_norm(candidate)
        return moved

    @torch.no_grad()
    def _settle(self) -> None:
        """What the host has to do with the projection on a GPU: read what is left of it, and count."""
        if self.together is None:
            return
        left = self.together.unproven()
        if len(left):
            weight = self._stacked()
            self.together.settle(weight, left)
            self._spread(weight)
        shape = (self.model.num_layers, len(self.replicas))
        saturated = self.together.saturated.view(shape)
        self.sigma_max = self.together.sigma_max.view(shape).amax(0).to(self.rate.dtype)
        self.saturated.copy_(saturated.sum(0))
        self.projected += (saturated > 0).sum(0)
        self.skipped += (saturated == 0).sum(0) * self.max_sv.isfinite()

    def _stacked(self) -> Tensor:
        """The matrices to project [L R, H, H], one layer after the other; of a single layer the weights themselves."""
        layers = [self.model.recurrent(layer) for layer in range(self.model.num_layers)]
        return layers[0] if len(layers) == 1 else torch.cat(layers)

    def _spread(self, stacked: Tensor) -> None:
        if self.model.num_layers > 1:
            for layer, part in enumerate(stacked.chunk(self.model.num_layers)):
                self.model.recurrent(layer).copy_(part)

    def _dropout_masks(self, steps: int, lanes: int) -> list[Tensor] | None:
        """Factors [R, T, B, H] for every layer; drawn for the whole batch, then cut to this rank's lanes."""
        if self.dropout == 0:
            return None
        layers, keep = self.model.num_layers + 1, 1 - self.dropout
        if self.fused:
            shape = (layers, steps, lanes, self.model.hidden_size)
            masks = fused.dropout_masks(self.seeds, self.drawn, shape, keep)
            return list(masks[:, :, :, self.part].unbind(1))
        masks = self.state.new_empty(len(self.replicas), layers, steps, lanes, self.model.hidden_size)
        for mask, generator in zip(masks, self.generators, strict=True):
            # Five times as fast as `bernoulli_`.
            torch.lt(mask.uniform_(generator=generator), keep, out=mask)
        masks /= keep
        return list(masks[:, :, :, self.part].unbind(1))

    def spectral_radius(self) -> Tensor:
        """|lambda_1(J)| at the fixed point h* = 0, the largest over layers: [R]; NaN where W_hh is not finite."""
        layers = []
        for layer in range(self.model.num_layers):
            jacobian = jacobian_at_origin(self.model.recurrent(layer))
            finite = jacobian.isfinite().all(-1).all(-1)
            measure = batched.spectral_radius if jacobian.is_cuda else spectral_radius
            radius = measure(torch.where(finite[:, None, None], jacobian, 0.0))
            layers.append(torch.where(finite, radius, torch.nan))
        return torch.stack(layers).amax(0)

    def singular_values(self, replicas: Sequence[int] | None = None) -> list[list[list[float]]]:
        """Singular values of W_hh of `replicas` (all), descending: [R][L][H]; zero where W_hh is not finite.

        In float64 on the host, of equal matrices once: at the start all values are equal, and those of a seed's runs.
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
        self.generators = [self.generators[r] for r in index]
        del self.network
        self.model.keep(index)
        self.network = self.ranks.parallel(self.model)
        for projection in self.projections:
            projection.select(torch.tensor(index, device=self.device))
        if self.together is not None:
            stacked = torch.arange(len(self.max_sv) * self.model.num_layers, device=self.device)
            self.together.select(stacked.view(self.model.num_layers, -1)[:, index].flatten())
        for name in (
            "max_sv",
            "threshold",
            "rate",
            "state",
            "projected",
            "skipped",
            "saturated",
            "sigma_max",
        ):
            setattr(self, name, getattr(self, name)[index])
        self._restart()

    def state_dict(self) -> dict[str, Any]:
        """All that changes while training, of all ranks: every rank must call it."""
        names = ("rate", "projected", "skipped", "saturated", "sigma_max", "drawn")
        return {
            "model": self.model.state_dict(),
            "projections": [p.state_dict() for p in self.projections],
            "together": None if self.together is None else self.together.state_dict(),
            "generators": [g.get_state() for g in self.generators],
            **{name: getattr(self, name) for name in names},
            "state": self.ranks.all_lanes(self.state, self.lanes),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()` of an engine with the same replicas."""
        self.model.load_state_dict(state["model"])
        for projection, saved in zip(self.projections, state["projections"], strict=True):
            projection.load_state_dict(_on(saved, self.device))
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved)
        if self.together is not None:
            self.together.load_state_dict(_on(state["together"], self.device))
        for name in ("rate", "projected", "skipped", "saturated", "sigma_max", "drawn"):
            setattr(self, name, state[name].to(self.device))
        self.state = state["state"].to(self.device)[:, :, self.part]
        self._restart()


def _on(value: Any, device: torch.device) -> Any:
    """`value` with the tensors in its dicts and lists on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _on(item, device) for key, item in value.items()}
    return [_on(item, device) for item in value] if isinstance(value, list) else value
