"""Runs on record. Stages write outs and never come here; `sync` reads the outs and puts the run into MLflow.

The only package that imports mlflow, and only inside functions: it takes two seconds.
"""

from pipelines.tracking.events import Event, events
from pipelines.tracking.export import export
from pipelines.tracking.redact import redact
from pipelines.tracking.store import Store, TrackingError, locate
from pipelines.tracking.ui import ui
from pipelines.tracking.uploader import sync

__all__ = ["Event", "Store", "TrackingError", "events", "export", "locate", "redact", "sync", "ui"]
