"""Run directories -> MLflow. Records come first; tracking is a view of them that can be deleted and rebuilt."""

from spectralgru.pipeline.tracking.experiment import Tracked
from spectralgru.pipeline.tracking.runs import follow, track
from spectralgru.pipeline.tracking.server import serve
from spectralgru.pipeline.tracking.store import open_store, tracking_uri

__all__ = ["Tracked", "follow", "open_store", "serve", "track", "tracking_uri"]
