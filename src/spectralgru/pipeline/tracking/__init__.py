"""Run directories -> MLflow: records come first, tracking is a view of them that can be thrown away and made again."""

from spectralgru.pipeline.tracking.experiment import Tracked
from spectralgru.pipeline.tracking.runs import follow, track
from spectralgru.pipeline.tracking.store import open_store, tracking_uri, ui_address, ui_command

__all__ = ["Tracked", "follow", "open_store", "track", "tracking_uri", "ui_address", "ui_command"]
