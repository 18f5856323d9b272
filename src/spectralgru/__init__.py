"""Gated recurrent units whose fixed point stays stable (Kanai, Fujiwara, Iwamura, NIPS 2017)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectralgru.constraint import SpectralConstraint
    from spectralgru.diagnosis.autopsy import autopsy
    from spectralgru.diagnosis.recorder import ExplosionRecorder
    from spectralgru.recurrent.gru import GRU
    from spectralgru.spectral import clip_singular_values, is_stable, jacobian_at_origin, spectral_radius

__all__ = [
    "GRU",
    "ExplosionRecorder",
    "SpectralConstraint",
    "autopsy",
    "clip_singular_values",
    "is_stable",
    "jacobian_at_origin",
    "spectral_radius",
]

_HOMES = {
    "ExplosionRecorder": "diagnosis.recorder",
    "GRU": "recurrent.gru",
    "SpectralConstraint": "constraint",
    "autopsy": "diagnosis.autopsy",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: torch takes seconds to import, and the command line and the workflow often do without.
    if name not in __all__:
        raise AttributeError(f"module 'spectralgru' has no attribute {name!r}")
    return getattr(import_module(f"spectralgru.{_HOMES.get(name, 'spectral')}"), name)
