"""How much the gradient of a recurrent layer's state can grow in one step, for any input: docs/method.md.

Bounds on the spectral norm of d state' / d state, layer by layer. They hold for states that the layer can reach from
zero: |h| <= 1 in every unit, except for `torch.nn.RNN`, where they hold for any state.
"""

from collections.abc import Mapping
from math import sqrt

import torch
from torch import Tensor

# max of r^2 (1 - r) / (1 + r) over a gate r in (0, 1), at the golden section: (r a + r (1 - r) b)^2 is at most
# a^2 + GOLDEN b^2.
GOLDEN = ((sqrt(5) - 1) / 2) ** 5


def growth_bound(
    blocks: Mapping[str, Tensor], shift: Tensor | None = None, cell: float = float("inf")
) -> Tensor:
    """An upper bound on the largest singular value of d state' / d state, [R]; NaN where a weight is not finite.

    Args:
        blocks: recurrent weights [R, H, H]: `reset`, `update`, `candidate` of a GRU; `input`, `forget`, `candidate`,
            `output` of an LSTM; `candidate` alone of an RNN.
        shift: only for a GRU whose reset gate acts after the product: the candidate's recurrent bias [H], or zero.
        cell: only for an LSTM: before the step no unit of c is larger than this.
    """
    blocks = {name: block.double() for name, block in blocks.items()}
    finite = torch.stack([block.isfinite().all(-1).all(-1) for block in blocks.values()]).all(0)
    blocks = {name: block.where(finite[:, None, None], 0) for name, block in blocks.items()}
    if "forget" in blocks:
        bound = _lstm(blocks, cell)
    elif "update" in blocks:
        bound = _gru(blocks, shift)
    else:
        bound = _norm(blocks["candidate"])
    return bound.where(finite, torch.nan)


def _gru(blocks: Mapping[str, Tensor], shift: Tensor | None) -> Tensor:
    candidate, reset = _norm(blocks["candidate"]), blocks["reset"]
    if shift is None:
        path = candidate**2 * (1 + GOLDEN * _norm(reset) ** 2)
    else:  # the reset gate multiplies W_hn h + b, not a state within [-1, 1]
        largest = blocks["candidate"].abs().sum(-1) + shift.double().abs()
        path = candidate**2 + GOLDEN * _norm(largest.unsqueeze(-1) * reset) ** 2
    return (1 + path + _norm(blocks["update"]) ** 2 / 2).sqrt()


def _lstm(blocks: Mapping[str, Tensor], cell: float) -> Tensor:
    entering, forget, candidate, leaving = (
        _norm(blocks[n]) for n in ("input", "forget", "candidate", "output")
    )
    kept = (sqrt(GOLDEN) * cell * forget).nan_to_num(
        nan=0.0, posinf=torch.inf
    )  # 0 times infinity: no such path
    new = (candidate**2 + entering**2 / 16).sqrt()
    return (2 * (1 + (kept + new) ** 2) + leaving**2 / 16).sqrt()


def _norm(matrix: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.matrix_norm(matrix, 2)
    return norm
