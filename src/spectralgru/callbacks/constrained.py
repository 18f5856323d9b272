"""What the callbacks share: a constraint created when training begins, its state, and its numbers for the log."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from spectralgru.constraint import SpectralConstraint
from spectralgru.diagnosis.spectra import exact_spectra, model_cells
from spectralgru.projection.blocks import named_modules
from spectralgru.projection.clip import Solver


class Constrained:
    """Settings of a `SpectralConstraint` and, while a model is trained, the constraint itself."""

    def __init__(self, delta: float = 0.2, gates: float | None = None, method: Solver = "auto") -> None:
        """See `SpectralConstraint`."""
        self.delta, self.gates, self.method = delta, gates, method
        self.constraint: SpectralConstraint | None = None
        self._handle: RemovableHandle | None = None
        self._loaded: dict[str, Any] = {}

    def begin(self, model: nn.Module, optimizers: Sequence[Any]) -> None:
        """Constrain the model and attach to its optimisers; raises InputError as `SpectralConstraint` does."""
        self.constraint = SpectralConstraint(model, self.delta, self.method, self.gates)
        if self._loaded:
            self.constraint.load_state_dict(self._loaded)
        self._handle = self.constraint.attach(*optimizers)
        self._cells = model_cells({name: module for _, name, module in named_modules(model)})

    def end(self) -> None:
        """Detach."""
        if self._handle is not None:
            self._handle.remove()

    def state_dict(self) -> dict[str, Any]:
        """State of the constraint, or what was loaded for it before training begins."""
        return self._loaded if self.constraint is None else self.constraint.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep a state for the next `begin`."""
        self._loaded = state

    def numbers(self) -> dict[str, float]:
        """sigma_1 of each constrained block, the spectral radius at the origin and, with `gates`, the growth bound."""
        assert self.constraint is not None
        numbers = {}
        for name, spectrum in exact_spectra(self._cells).items():
            blocks = [path for path in spectrum if path != "radius"]
            for path in blocks if self.gates is not None else {"candidate", "recurrence"} & set(blocks):
                numbers[f"spectral/{name}/sigma_1/{path.replace(' ', '_')}"] = spectrum[path]
            numbers[f"spectral/{name}/radius"] = spectrum["radius"]
        if self.gates is not None:
            numbers["spectral/growth_bound"] = self.constraint.growth_bound()
        return numbers
