"""Where runs are on record: journals, which are written first, and the MLflow store that they are sent to.

Knows no stage and no figure: pipelines/record makes events of a run's outs. The only package that imports mlflow, and only inside
functions: it takes two seconds.
"""

from pipelines.tracking.events import Event
from pipelines.tracking.journal import Waiting, drop, mark_killed, waiting
from pipelines.tracking.models import Registered, export, register
from pipelines.tracking.provenance import keep
from pipelines.tracking.store import LookupFailed, Store, TrackingError, locate
from pipelines.tracking.ui import ui

__all__ = [
    "Event", "LookupFailed", "Registered", "Store", "TrackingError", "Waiting", "drop", "export", "keep", "locate", "mark_killed",
    "register", "ui", "waiting",
]  # fmt: skip
