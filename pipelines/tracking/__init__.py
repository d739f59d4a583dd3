"""Runs on record. A run's journal is written first, while it goes on or from its outs, and sent to MLflow from there.

Stages write outs and never come here: who calls them tells a `Recording` what happens.
The only package that imports mlflow, and only inside functions: it takes two seconds.
"""

from pipelines.tracking.backlog import Waiting, drop, waiting
from pipelines.tracking.circumstances import keep
from pipelines.tracking.events import Event, events
from pipelines.tracking.export import export
from pipelines.tracking.journal import bury
from pipelines.tracking.lookup import LookupFailed, find
from pipelines.tracking.record import send_waiting, sync
from pipelines.tracking.recording import Outcome, Recording
from pipelines.tracking.redact import redact
from pipelines.tracking.registry import Registered, register
from pipelines.tracking.store import Store, TrackingError, locate
from pipelines.tracking.ui import ui

__all__ = [
    "Event", "LookupFailed", "Outcome", "Recording", "Registered", "Store", "TrackingError", "Waiting", "bury", "drop",
    "events", "export", "find", "keep", "locate", "redact", "register", "send_waiting", "sync", "ui", "waiting",
]  # fmt: skip
