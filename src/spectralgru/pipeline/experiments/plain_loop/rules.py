"""Ways to keep a recurrent network from exploding, by name, including `none`.

Like the paper's constraint, most of them act on the candidate's recurrent weights alone (W_hn of a GRU, W_hg of an
LSTM). Clipping acts on the whole gradient, flossing on all recurrent weights, and bounds on the gates on theirs.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from spectralgru.constraint import SpectralConstraint
from spectralgru.pipeline.experiments.plain_loop.adaptive_clipping import AutoClip, ZClip
from spectralgru.pipeline.experiments.plain_loop.flossing import Flossing
from spectralgru.pipeline.experiments.plain_loop.loop import PlainModel, Rule


class ComputedWeight(nn.Module):
    """W_hh of one layer, with the candidate's rows computed from parameters that are trained in their place."""

    def __init__(self, weight: Tensor, parametrize: Callable[[nn.Module], object], scale: float) -> None:
        """`weight` [3H or 4H, H]: initial value; `parametrize`: torch's function for the `weight` of a module."""
        super().__init__()
        self.scale, self.hidden = scale, (hidden := weight.shape[1])
        weight = weight.detach()
        self.gates = nn.Parameter(torch.cat([weight[: 2 * hidden], weight[3 * hidden :]]))
        self.candidate = nn.Linear(hidden, hidden, bias=False)
        self.candidate.weight = nn.Parameter(weight[2 * hidden : 3 * hidden].clone())
        parametrize(self.candidate)

    def forward(self) -> Tensor:
        """[3H or 4H, H]."""
        before, after = self.gates[: 2 * self.hidden], self.gates[2 * self.hidden :]
        return torch.cat([before, self.scale * self.candidate.weight, after])


def _compute(model: PlainModel, parametrize: Callable[[nn.Module], object], scale: float) -> None:
    for layer in range(model.num_layers):
        name = f"weight_hh_l{layer}"
        model.computed[name] = ComputedWeight(model.weight_hh(layer), parametrize, scale)
        delattr(model.rnn, name)
    model.compute_weights()


def constraint(model: PlainModel, delta: float, gates: float | None = None) -> Rule:
    """The paper's: after every step singular values above 2 - delta become 2 - delta, in the gates `gates`."""
    return Rule(after_step=SpectralConstraint(model, delta, gates=gates).project_)


def clipping(model: PlainModel, threshold: float) -> Rule:
    """The gradient's global norm scaled down to a threshold (Pascanu et al., 2013)."""
    return Rule(threshold)


def autoclip(model: PlainModel, percentile: float) -> Rule:
    """Clipping at a percentile of the norms so far, including this one (Seetharaman et al., 2020)."""
    return Rule(adaptive=AutoClip(percentile))


def zclip(model: PlainModel, threshold: float) -> Rule:
    """Clipping of norms with a high z-score among the latest (Kumar et al., 2025)."""
    return Rule(adaptive=ZClip(threshold))


def flossing(model: PlainModel, strength: float) -> Rule:
    """strength times the mean square of the leading Lyapunov exponents (Engelken, 2023)."""
    return Rule(penalty=Flossing(model, strength))


def none(model: PlainModel, value: float) -> Rule:
    """Nothing."""
    return Rule()


def spectral_norm(model: PlainModel, delta: float) -> Rule:
    """torch's spectral_norm: scales the whole matrix to sigma_1 = 2 - delta, where the constraint clips what is above.

    sigma_1 is estimated by power iteration (Miyato et al., 2018), which lags behind fast changes: with torch's default
    of one iteration per step, it reached 35 instead of 1.8 in the first steps on the chorales. Ten cost hardly any
    time.
    """
    _compute(model, lambda m: parametrizations.spectral_norm(m, n_power_iterations=10), 2 - delta)
    return Rule()


def orthogonal(model: PlainModel, value: float) -> Rule:
    """torch's orthogonal by the Cayley map: every singular value is always 1."""
    _compute(model, lambda m: parametrizations.orthogonal(m, orthogonal_map="cayley"), 1.0)
    return Rule()


def weight_decay(model: PlainModel, strength: float) -> Rule:
    """strength / 2 times the squared Frobenius norm, added to the differentiated loss."""

    def decay() -> None:
        rows = slice(2 * model.hidden_size, 3 * model.hidden_size)
        for layer in range(model.num_layers):
            gradient = model.weight_hh(layer).grad
            assert gradient is not None
            gradient[rows] += strength * model.recurrent(layer)

    return Rule(before_step=decay)


RULES: dict[str, Callable[..., Rule]] = {
    "constraint": constraint,
    "clipping": clipping,
    "autoclip": autoclip,
    "zclip": zclip,
    "none": none,
    "spectral_norm": spectral_norm,
    "orthogonal": orthogonal,
    "weight_decay": weight_decay,
    "flossing": flossing,
}


def rule(
    model: PlainModel,
    method: str,
    value: float | None,
    clip: float | None = None,
    gates: float | None = None,
) -> Rule:
    """The rule of this method, with clipping at `clip` added; `gates`: only for the constraint.

    Call this before creating the optimiser.
    """
    chosen = RULES[method](model, value or 0.0, *([] if gates is None else [gates]))
    return chosen if clip is None else replace(chosen, threshold=min(clip, chosen.threshold))


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "Adam": torch.optim.Adam,
}
