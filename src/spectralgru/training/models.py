"""The paper's model, first layer -> GRU stack -> output layer, with a leading replica axis, for words and notes.

Shapes: R replicas, T time steps, B lanes of the batch, H hidden units, V words or notes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from spectralgru.recurrent.gru import GRU, gru_layer
from spectralgru.recurrent.products import linear
from spectralgru.training.losses import binary_cross_entropy, cross_entropy

Kind = Literal["words", "notes"]


class ReplicatedModel(nn.Module):
    """R independent networks of one shape, computed together.

    Words: `inputs` are token ids and the loss is the cross-entropy of a softmax over V words. Notes: `inputs` are
    binary vectors and the loss is the binary cross-entropy summed over V notes. Both in nats.
    """

    def __init__(
        self,
        kind: Kind,
        size: int,
        hidden_size: int,
        num_layers: int,
        input_scale: float,
        replicas: int,
        multiple: int = 1,
    ) -> None:
        """`multiple`: inside, units are added up to a multiple of it; their weights, states and gradients are zero."""
        super().__init__()
        self.kind = kind
        self.input_scale = input_scale
        self.hidden_size, self.multiple = hidden_size, multiple  # H without those
        hidden_size = -(-hidden_size // multiple) * multiple
        # The gradient of a table of words is that of the rows a step looks up; the table itself has none.
        first = nn.Parameter(torch.zeros(replicas, size, hidden_size), requires_grad=kind == "notes")
        self.input = nn.ParameterDict({"weight": first})
        self.gru = GRU(hidden_size, hidden_size, num_layers, replicas=replicas)
        for weight in self.gru.parameters():
            nn.init.zeros_(weight)
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

    def recurrent(self, layer: int) -> Tensor:
        """W_hh of the candidate, [R, H, H], as a view that may be changed in place."""
        return self.own(f"gru.weight_hh_l{layer}")[:, 2]

    def own(self, name: str, gradient: bool = False) -> Tensor:
        """Weights, or their gradient, as a view without the added units; the GRU's as [R, 3, H, H]."""
        parameter = self.get_parameter(name)
        weight = parameter.detach()
        if gradient:
            assert parameter.grad is not None
            weight = parameter.grad
        if name.startswith("gru."):
            weight = weight.view(len(weight), 3, -1, weight.shape[-1])[:, :, : self.hidden_size]
        return weight if name == "output.bias" else weight[..., : self.hidden_size]

    def padded(self, x: Tensor) -> Tensor:
        """x [..., H], with zeros for the added units."""
        added = self.gru.hidden_size - self.hidden_size
        return nn.functional.pad(x, (0, added)) if added else x

    def initial_state(self, lanes: int) -> Tensor:
        """Zeros [R, L, B, H]: the fixed point h* = 0."""
        shape = (self.replicas, self.num_layers, lanes, self.gru.hidden_size)
        return torch.zeros(shape, device=self.device)

    def forward(
        self,
        inputs: Tensor,
        h0: Tensor,
        starts: Tensor | None = None,
        masks: Sequence[Tensor] | None = None,
        products: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        """The input of the output layer, [R, T, B, H], and the last state [R, L, B, H].

        `inputs`: ids [T, B] (words, shared by all replicas), their rows (see `looked_up`), or notes [R, T, B, V] (R may
        be 1: shared). `starts` [R, T, B]: where true, the state is zero before that step. `masks`: dropout factors
        [R, T, B, H] for the input of every GRU layer and of the output layer. `products`: type of the factors of every
        product outside the recurrence; weights and states are float32.
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
        return x, torch.stack(last, 1)

    def logits(self, x: Tensor) -> Tensor:
        """The output layer in float32: [R, T, B, V] from the result of `forward`."""
        return linear(x, self.output["weight"], self.output["bias"])

    def embedded(self, inputs: Tensor, products: torch.dtype = torch.float32) -> Tensor:
        """The first layer's output [R, T, B, H], scaled; see `forward`."""
        if not inputs.is_floating_point():
            inputs = self.looked_up(inputs)
        steps, lanes = inputs.shape[-3:-1]
        if self.kind == "words":
            x = inputs
        else:
            flat = inputs.reshape(inputs.shape[0], steps * lanes, -1).expand(self.replicas, -1, -1)
            x = linear(flat.to(products), self.input["weight"].to(products).mT).float()
        scaled: Tensor = x.view(self.replicas, steps, lanes, -1) * self.input_scale
        return scaled

    def looked_up(self, inputs: Tensor) -> Tensor:
        """Words: the first layer's rows [R, T, B, H] of ids [T, B]. Notes: unchanged."""
        if self.kind == "notes":
            return inputs
        table: Tensor = self.input["weight"]
        return table.index_select(1, inputs.reshape(-1)).view(self.replicas, *inputs.shape, -1)

    def loss(
        self, x: Tensor, targets: Tensor, weights: Tensor, products: torch.dtype = torch.float32
    ) -> Tensor:
        """Loss of every replica, summed over steps and lanes where `weights` [R or 1, T, B] is 1: [R].

        `x` [R, T, B, H]: the result of `forward`. `targets`: ids [T, B] (words) or notes [R or 1, T, B, V]. `products`:
        as in `forward`.
        """
        counted, x = weights.expand(x.shape[:-1]).flatten(1), x.flatten(1, 2).to(products)
        weight, bias = self.output["weight"].to(products), self.output["bias"]
        if self.kind == "words":
            return cross_entropy(x, weight, bias, targets.flatten(), counted)
        return binary_cross_entropy(linear(x, weight, bias), targets.flatten(1, 2), counted)

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
        model = ReplicatedModel(self.kind, *shape, self.input_scale, len(weights), self.multiple).to(
            self.device
        )
        for replica, of_one in enumerate(weights):
            model.set_weights(replica, of_one)
        return model

    def weights_of(self, replica: int) -> dict[str, Tensor]:
        """Copy of one replica's weights, on its device, without the replica axis."""
        own = {name: self.own(name)[replica] for name, _ in self.named_parameters()}
        return {name: (w.flatten(0, 1) if w.ndim == 3 else w).clone() for name, w in own.items()}

    def set_weights(self, replica: int, weights: Mapping[str, Tensor | np.ndarray]) -> None:
        """Overwrite one replica's weights."""
        for name, _ in self.named_parameters():
            own = self.own(name)[replica]
            own.copy_(torch.as_tensor(weights[name]).reshape(own.shape))


def initial_weights(
    size: int, hidden_size: int, num_layers: int, init_scale: float, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """One replica's initial weights, by name.

    W_hh (candidate) is the left singular vectors of a Gaussian matrix, so that every singular value is 1. All other
    weights are Gaussian with variance init_scale / hidden_size; the output bias is zero.
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
