"""Growth along the data: how fast a gradient grows on its way back through a batch, in every lane of every run."""

import torch
from torch import Tensor

from spectralgru.diagnosis.gru_growth import gru_growth
from spectralgru.training.batches import Chunk
from spectralgru.training.models import ReplicatedModel


@torch.no_grad()
def growth(model: ReplicatedModel, chunk: Chunk, state: Tensor) -> Tensor:
    """Largest finite-time Lyapunov exponent over the T steps of a batch, without dropout: [R, L, B].

    `state` [R, L, B, H]: of the lanes of `chunk`, before its first step. On a CPU every run is measured by itself, so
    that its bits do not depend on the others.
    """
    x, starts = model.embedded(chunk.inputs)[..., : model.hidden_size], chunk.starts
    state = state[..., : model.hidden_size]
    starts = None if starts is None else starts.expand(model.replicas, -1, -1)
    if x.device.type == "cpu":
        runs = range(model.replicas)
        return torch.stack(
            [_of_layers(model, x[r], state[r], None if starts is None else starts[r], r) for r in runs]
        )
    return _of_layers(model, x, state, starts, slice(None))


def _of_layers(
    model: ReplicatedModel, x: Tensor, state: Tensor, starts: Tensor | None, runs: int | slice
) -> Tensor:
    exponents = []
    for layer in range(model.num_layers):
        weights = (model.own(f"gru.weight_{kind}_l{layer}")[runs] for kind in ("ih", "hh"))
        weight_ih, weight_hh = (weight.flatten(-3, -2) for weight in weights)
        found, x = gru_growth(x, state.select(-3, layer), weight_ih, weight_hh, starts)
        exponents.append(found)
    return torch.stack(exponents, -2)
