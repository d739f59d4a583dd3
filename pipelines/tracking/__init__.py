"""Runs on record. Stages write outs and never come here; `sync` reads the outs and puts the run into MLflow.

The only package that imports mlflow, and only inside functions: it takes two seconds.
"""

from pipelines.tracking.circumstances import keep
from pipelines.tracking.events import Event, events
from pipelines.tracking.export import export
from pipelines.tracking.lookup import LookupFailed, find
from pipelines.tracking.redact import redact
from pipelines.tracking.registry import Registered, register
from pipelines.tracking.store import Store, TrackingError, locate
from pipelines.tracking.ui import ui
from pipelines.tracking.uploader import sync

__all__ = [
    "Event", "LookupFailed", "Registered", "Store", "TrackingError", "events", "export", "find", "keep", "locate", "redact",
    "register", "sync", "ui",
]  # fmt: skip
