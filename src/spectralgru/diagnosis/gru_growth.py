"""The largest finite-time Lyapunov exponent of the paper's GRU, from its own sweeps: cheap enough during training."""

import torch
from torch import Tensor

from spectralgru.diagnosis.lyapunov import starting_directions
from spectralgru.recurrent.layer import sweeps_for
from spectralgru.recurrent.sweeps import Inputs


@torch.no_grad()
def gru_growth(
    x: Tensor, h0: Tensor, weight_ih: Tensor, weight_hh: Tensor, starts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Exponents [*, B] of a layer with `reset="before"`, and its states after each step [*, T, B, H].

    Computes `lyapunov_exponents(count=1)` from the arguments of `gru_layer`. One direction is carried back through all
    steps without rescaling: growth beyond the range of float32 is infinite.
    """
    module, keep = sweeps_for(weight_hh), None if starts is None else ~starts.bool().unsqueeze(-1)
    inputs, steps = Inputs(x, h0, weight_ih, weight_hh, keep), x.shape[-3]
    saved = module.forward(inputs, True)
    states = saved.states
    if keep is not None:  # the states start afresh, the directions continue
        last = states.narrow(-3, steps, 1)
        saved = saved._replace(states=torch.cat([states.narrow(-3, 0, steps) * keep, last], -3))
    grad = torch.zeros_like(saved.candidates)
    grad.select(-3, steps - 1).copy_(starting_directions(1, h0.shape[-1])[:, 0])
    pulled = module.backward(grad, inputs._replace(keep=None), saved, True, False).h0
    return torch.linalg.vector_norm(pulled, dim=-1).log() / steps, states.narrow(-3, 1, steps)
