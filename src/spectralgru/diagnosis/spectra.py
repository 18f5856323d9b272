"""sigma_1 and the spectral radius at the origin of recurrent weights: exact, or tracked cheaply from step to step."""

from typing import Any

import torch
from torch import Tensor, nn

from spectralgru.diagnosis.cells import Cell
from spectralgru.diagnosis.lyapunov import pulled_back
from spectralgru.diagnosis.traced import CELLS, is_recurrent, kind_of
from spectralgru.diagnosis.unrolled import Call, cells_of

# Vectors that track the leading eigenvalues; a complex pair needs two.
_VECTORS = 4


def recurrent_cells(module: Any, name: str) -> dict[str, Cell]:
    """The cell of every layer and direction of a recurrent module, by the name of its weight_hh in the model."""
    some: Any = torch.empty(0)
    layers = 1 if isinstance(module, CELLS) else module.num_layers
    directions = 2 if getattr(module, "bidirectional", False) else 1
    call = Call(name, kind_of(module), layers, directions, some, some, is_chain=isinstance(module, CELLS))
    cells = cells_of(call, lambda weight: getattr(module, weight.rpartition(".")[2], None))
    return dict(zip(call.weight_names(), cells, strict=True))


def model_cells(modules: dict[str, nn.Module]) -> dict[str, Cell]:
    """The cells of all recurrent modules among `modules`."""
    recurrent = ((n, m) for n, m in modules.items() if is_recurrent(m))
    return {
        weight: cell for name, module in recurrent for weight, cell in recurrent_cells(module, name).items()
    }


@torch.no_grad()
def jacobian_at_zero(cell: Cell) -> Tensor:
    """The transpose of d state' / d state [*, S, S] for a step from the zero state with zero input.

    For a GRU without biases d state' / d state is W_hn / 4 + I / 2. With biases, zero is not a fixed point, but still
    the initial state.
    """
    eye = torch.eye(cell.state_size, dtype=cell.weight_hh.dtype, device=cell.weight_hh.device)
    return _back_at_zero(cell, eye)


def _back_at_zero(cell: Cell, directions: Tensor) -> Tensor:
    lead = cell.weight_hh.shape[:-2]
    zero = cell.weight_hh.new_zeros(*lead, 1, cell.state_size)
    inputs = cell.project(cell.weight_ih.new_zeros(*lead, 1, 1, cell.weight_ih.shape[-1])).select(-3, 0)
    return pulled_back(cell, inputs, zero, directions.expand(*zero.shape, -1)).squeeze(-3)


@torch.no_grad()
def exact_spectra(cells: dict[str, Cell]) -> dict[str, dict[str, float]]:
    """sigma_1 of each block and the spectral radius of the Jacobian at zero, in float64; NaN where not finite.

    With several replicas, the largest of each.
    """
    spectra = {}
    for name, narrow in cells.items():
        cell = narrow.double()
        if not cell.is_finite():
            spectra[name] = dict.fromkeys((*cell.blocks(), "radius"), float("nan"))
            continue
        spectra[name] = {
            path: float(torch.linalg.matrix_norm(block, 2).max()) for path, block in cell.blocks().items()
        }
        spectra[name]["radius"] = float(torch.linalg.eigvals(jacobian_at_zero(cell)).abs().max())
    return spectra


class FollowedSpectra:
    """Lower estimates that improve with every look, by power iteration and subspace iteration."""

    def __init__(self) -> None:
        self._vectors: dict[str, tuple[Tensor, Tensor]] = {}  # of each weight: for sigma_1, for the radius

    @torch.no_grad()
    def look(self, cells: dict[str, Cell]) -> dict[str, dict[str, Tensor]]:
        """sigma_1 of each block, and the radius, as tensors on the weights' device."""
        return {name: self._look(name, cell) for name, cell in cells.items()}

    def _look(self, name: str, cell: Cell) -> dict[str, Tensor]:
        weight = cell.weight_hh.detach()
        if weight.dim() == 3:  # of replicas, the first one
            weight = weight[0]
            cell = cell.replica(0)
        blocks = weight.float().view(-1, cell.hidden_size, cell.hidden_size)
        if name not in self._vectors:
            generator = torch.Generator().manual_seed(0)
            v = torch.randn(len(blocks), 1, cell.hidden_size, generator=generator).to(blocks)
            q = torch.randn(cell.state_size, _VECTORS, generator=generator).to(weight)
            self._vectors[name] = v / v.norm(dim=2, keepdim=True), q
        v, q = self._vectors[name]
        for _ in range(3):
            u = v @ blocks.mT  # a row times a matrix: ten times as fast as a matrix times a column
            sigma = u.flatten(1).norm(dim=1)
            v = u @ blocks
            v = v / v.norm(dim=2, keepdim=True).clamp_min(1e-30)
        q = torch.linalg.qr(q.float())[0].to(q)
        pulled = _back_at_zero(cell, q)
        radius = (q.mT @ pulled).float()
        if pulled.isfinite().all():
            self._vectors[name] = v, pulled
            radius = torch.linalg.eigvals(radius).abs().max()
        else:
            radius = sigma.sum() * torch.nan
        return {**dict(zip(cell.blocks(), sigma, strict=True)), "radius": radius}
