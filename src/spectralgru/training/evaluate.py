"""Loss and metric of trained models on a split, without dropout."""

import math

import torch
from torch import Tensor

from spectralgru.training.batches import NoteStream, WordStream
from spectralgru.training.distributed import ALONE, Ranks
from spectralgru.training.models import Kind, ReplicatedModel


@torch.no_grad()
def evaluate(model: ReplicatedModel, stream: WordStream | NoteStream, ranks: Ranks = ALONE) -> Tensor:
    """Mean loss [R], in nats per token (words) or per time step (notes); ranks share the lanes."""
    share = ranks.share(stream.lanes)
    state = model.initial_state(share.stop - share.start)
    total, count = state.new_zeros(model.replicas), 0.0
    for index in range(len(stream)):
        chunk = stream.chunk(index).of_lanes(share)
        starts = None if chunk.starts is None else chunk.starts.expand(model.replicas, -1, -1)
        x, state = model(chunk.inputs, state, starts)
        total += model.loss(x, chunk.targets, chunk.weights)
        count += chunk.count
    return ranks.total(total) / count


def metric(kind: Kind, loss: float) -> float:
    """Perplexity (words; kept finite) or negative log-likelihood in nats per step (notes)."""
    return math.exp(min(loss, 700.0)) if kind == "words" else loss
