"""One step of stochastic gradient descent, without the projection."""

import torch
from torch import Tensor

from spectralgru.training.batches import Chunk
from spectralgru.training.clipping import clip_factor, gradient_norm
from spectralgru.training.distributed import Ranks
from spectralgru.training.models import ReplicatedModel
from spectralgru.training.precision import product_dtype, tf32
from spectralgru.training.rows import move_rows_, row_sums, slots
from spectralgru.training.settings import Precision

# After a longer update the squares of weights would overflow float32: the run is lost.
LONGEST_UPDATE = 1e9


class Descent:
    """Moves the weights of R runs along their gradients."""

    def __init__(self, model: ReplicatedModel, lanes: int, ranks: Ranks, precision: Precision) -> None:
        """`lanes`: of the whole batch, which the ranks share."""
        self.model, self.lanes, self.ranks, self.precision = model, lanes, ranks, precision
        self.network = ranks.parallel(model)
        self.gradients: list[Tensor] = []  # of the last step

    def step(
        self, chunk: Chunk, state: Tensor, masks: list[Tensor] | None, rate: Tensor, threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Move the weights by the gradient on `chunk`, clipped to `threshold` [R], times `rate` [R].

        Returns this rank's summed loss, the gradient norm before clipping and the factor of the update, all [R], and
        the new state. The gradients stay until the next step.
        """
        self.forget()
        own = chunk.of_lanes(self.ranks.share(self.lanes)) if self.ranks.world > 1 else chunk
        words, inputs = self.model.kind == "words", self.model.looked_up(own.inputs)
        inputs.requires_grad_(words)
        with tf32(self.precision):
            products = product_dtype(self.precision)
            x, state = self.network(inputs, state, own.starts, masks, products)
            loss = self.model.loss(x, own.targets, own.weights, products)
            torch.autograd.backward(loss.sum() / self.lanes)
        moving = [(p, p.grad) for p in self.model.parameters() if p.grad is not None]
        self.gradients = [gradient for _, gradient in moving]
        if words:
            assert inputs.grad is not None
            ids = chunk.inputs.flatten()
            slot = slots(ids)
            sums = row_sums(self.ranks.all_lanes(inputs.grad, self.lanes).flatten(1, 2), slot)
            self.gradients.insert(0, sums)
        norm = gradient_norm(self.gradients)
        factor = rate * clip_factor(norm, threshold)
        factor = factor.masked_fill(~(factor * norm < LONGEST_UPDATE), torch.nan)
        with torch.no_grad():
            for parameter, gradient in moving:
                parameter.addcmul_(gradient, factor.view(-1, *[1] * (parameter.ndim - 1)), value=-1)
            if words:
                move_rows_(self.model.input["weight"], ids, slot, sums, factor.view(-1, 1, 1))
        return loss.detach(), norm, factor, state.detach()

    def forget(self) -> None:
        """Free the gradients."""
        self.gradients = []
        self.model.zero_grad()
