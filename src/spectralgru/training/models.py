"""The paper's model with a leading replica axis: first layer -> GRU stack -> output layer, for words and for notes.

Shapes: R replicas, T time steps, B lanes of the batch, H hidden units, V words or notes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from spectralgru.recurrent.gru import GRU, gru_layer
from spectralgru.recurrent.products import linear

Kind = Literal["words", "notes"]


class ReplicatedModel(nn.Module):
    """R independent networks of one shape, computed together.

    Words: `inputs` are token ids and the loss is the cross-entropy of a softmax over V words. Notes: `inputs` are
    binary vectors and the loss is the binary cross-entropy summed over V notes. Both in nats.
    """

    def __init__(
        self, kind: Kind, size: int, hidden_size: int, num_layers: int, input_scale: float, replicas: int
    ) -> None:
        super().__init__()
        self.kind = kind
        self.input_scale = input_scale
        self.input = nn.ParameterDict({"weight": torch.zeros(replicas, size, hidden_size)})
        self.gru = GRU(hidden_size, hidden_size, num_layers, replicas=replicas)
        self.output = nn.ParameterDict(
            {"weight": torch.zeros(replicas, size, hidden_size), "bias": torch.zeros(replicas, size)}
        )

    @property
    def replicas(self) -> int:
        """R."""
        return len(self.output["bias"])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        bias: Tensor = self.output["bias"]
        return bias.device

    @property
    def num_layers(self) -> int:
        """Number of GRU layers."""
        return self.gru.num_layers

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.gru.hidden_size

    def recurrent(self, layer: int) -> Tensor:
        """W_hh of the candidate, [R, H, H], as a view that may be changed in place."""
        weight: Tensor = getattr(self.gru, f"weight_hh_l{layer}")
        return weight.detach()[:, 2 * self.hidden_size :]

    def initial_state(self, lanes: int) -> Tensor:
        """Zeros [R, L, B, H]: the fixed point h* = 0."""
        shape = (self.replicas, self.num_layers, lanes, self.hidden_size)
        return torch.zeros(shape, device=self.device)

    def forward(
        self,
        inputs: Tensor,
        h0: Tensor,
        starts: Tensor | None = None,
        masks: Sequence[Tensor] | None = None,
        products: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        """Logits [R, T, B, V] and the last state [R, L, B, H].

        `inputs`: ids [T, B] (words, the same for all replicas) or notes [R, T, B, V] (R may be 1, then shared).
        `starts` [R, T, B]: where True the state is zero before that step. `masks`: dropout factors [R, T, B, H]
        for the input of every GRU layer and of the output layer. `products`: type of the factors of every product
        outside the recurrence; weights, states and logits are float32.
        """
        x, last = self.embedded(inputs, products), []
        for layer in range(self.num_layers):
            if masks is not None:
                x = x * masks[layer]
            weight_ih, weight_hh = (getattr(self.gru, f"weight_{kind}_l{layer}") for kind in ("ih", "hh"))
            x, h = gru_layer(
                x.to(products), h0[:, layer], weight_ih.to(products), weight_hh, starts, self.gru.reset
            )
            last.append(h)
        if masks is not None:
            x = x * masks[-1]
        logits = linear(x.to(products), self.output["weight"].to(products), self.output["bias"])
        return logits, torch.stack(last, 1)

    def embedded(self, inputs: Tensor, products: torch.dtype = torch.float32) -> Tensor:
        """The first layer's output [R, T, B, H], scaled; see `forward`."""
        steps, lanes = inputs.shape[-2:] if self.kind == "words" else inputs.shape[-3:-1]
        if self.kind == "words":
            x = self.input["weight"].index_select(1, inputs.reshape(-1))
        else:
            flat = inputs.reshape(inputs.shape[0], steps * lanes, -1).expand(self.replicas, -1, -1)
            x = linear(flat.to(products), self.input["weight"].to(products).mT).float()
        scaled: Tensor = x.view(self.replicas, steps, lanes, -1) * self.input_scale
        return scaled

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Loss of every replica, summed over steps and lanes where `weights` [R or 1, T, B] is 1: [R].

        `targets`: ids [T, B] (words) or notes [R or 1, T, B, V]. The logits are consumed.
        """
        counted = weights.expand(logits.shape[:-1]).flatten(1)
        if self.kind == "words":
            expanded = targets.reshape(1, -1).expand_as(counted)
            total: Tensor = _SummedCrossEntropy.apply(logits.flatten(1, 2), expanded, counted)  # type: ignore[no-untyped-call]
            return total
        parts = _apart(logits.flatten(1, 2), targets.flatten(1, 2).expand(len(logits), -1, -1), counted)
        return torch.cat([_summed_binary_cross_entropy(*part) for part in parts])

    def keep(self, replicas: Sequence[int]) -> None:
        """Drop all replicas but these."""
        index = torch.tensor(list(replicas), dtype=torch.long, device=self.device)
        for parameter in self.parameters():
            parameter.data = parameter.data.index_select(0, index)
            parameter.grad = None
        self.gru.replicas = len(index)

    def with_weights(self, weights: Sequence[Mapping[str, Tensor]]) -> "ReplicatedModel":
        """Networks of this shape, on the same device, one for each of `weights`."""
        shape = (self.output["bias"].shape[-1], self.hidden_size, self.num_layers)
        model = ReplicatedModel(self.kind, *shape, self.input_scale, len(weights)).to(self.device)
        for replica, of_one in enumerate(weights):
            model.set_weights(replica, of_one)
        return model

    def weights_of(self, replica: int) -> dict[str, Tensor]:
        """Copy of one replica's weights, on its device, without the replica axis."""
        return {name: p.detach()[replica].clone() for name, p in self.named_parameters()}

    def set_weights(self, replica: int, weights: Mapping[str, Tensor | np.ndarray]) -> None:
        """Overwrite one replica's weights."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter[replica] = torch.as_tensor(weights[name])


def _apart(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """On a CPU, tensors [R, ...] split into [1, ...]; elsewhere unchanged.

    On a CPU the last few elements of a tensor are rounded differently from the rest; a replica's bits must not depend
    on its position in a tensor.
    """
    size = 1 if tensors[0].device.type == "cpu" else len(tensors[0])
    return zip(*(torch.split(t, size) for t in tensors), strict=True)


def _summed_binary_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (losses.sum(-1) * weights).sum(1)


class _SummedCrossEntropy(torch.autograd.Function):
    """Softmax cross-entropy [R, N, V] -> [R] in the memory of the logits: they become probabilities, then gradients."""

    @staticmethod
    def forward(ctx, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        index = targets.unsqueeze(-1)
        losses, totals = [], []
        for one, at, counted in _apart(logits, index, weights):
            largest = one.amax(-1, keepdim=True)
            picked = one.gather(-1, at) - largest
            total = one.sub_(largest).exp_().sum(-1, keepdim=True)
            losses.append(((total.log() - picked).squeeze(-1) * counted).sum(1))
            totals.append(total)
        ctx.save_for_backward(logits, torch.cat(totals), index, weights)
        return torch.cat(losses)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        exponentials, total, index, weights = ctx.saved_tensors
        scale = (weights * gradient.unsqueeze(1)).unsqueeze(-1)
        probabilities = exponentials.mul_(scale / total)
        probabilities.scatter_add_(-1, index, -scale)
        return probabilities, None, None


def initial_weights(
    size: int, hidden_size: int, num_layers: int, init_scale: float, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """One replica's initial weights, by name.

    W_hh (candidate): the left singular vectors of a Gaussian matrix, so that every singular value is 1. All other
    weights: Gaussian with variance init_scale / hidden_size. Output bias: zero.
    """
    rng = np.random.default_rng([seed, 0])
    std = (init_scale / hidden_size) ** 0.5

    def gaussian(*shape: int) -> np.ndarray:
        return np.asarray(std * rng.standard_normal(shape), np.float32)

    yield "input.weight", gaussian(size, hidden_size)
    for layer in range(num_layers):
        yield f"gru.weight_ih_l{layer}", gaussian(3 * hidden_size, hidden_size)
        gates = gaussian(2 * hidden_size, hidden_size)
        candidate = np.linalg.svd(rng.standard_normal((hidden_size, hidden_size)))[0].astype(np.float32)
        yield f"gru.weight_hh_l{layer}", np.concatenate([gates, candidate])
    yield "output.weight", gaussian(size, hidden_size)
    yield "output.bias", np.zeros(size, np.float32)
