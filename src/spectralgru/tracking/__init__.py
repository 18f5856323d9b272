"""Run directories -> MLflow: records come first, tracking is a view of them that can be thrown away and made again."""

from spectralgru.tracking.runs import Tracked, track
from spectralgru.tracking.store import open_store, tracking_uri, ui_address, ui_command

__all__ = ["Tracked", "open_store", "track", "tracking_uri", "ui_address", "ui_command"]
