"""A run's model into MLflow's registry, under a name and a version."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.tracking import models
from pipelines.tracking.lookup import LookupFailed, find
from pipelines.tracking.redact import redact
from pipelines.tracking.store import TrackingError, answering, connect, locate

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pipelines.spec import Tracking

FORBIDDEN = "/:.%\"'"  # in a name: it stands in URIs and in searches


@dataclass(frozen=True)
class Registered:
    """What the registry now holds."""

    name: str
    version: int
    run_id: str
    model_id: str
    store: str  # without secrets

    @property
    def uri(self) -> str:
        """As `mlflow models serve` takes it."""
        return f"models:/{self.name}/{self.version}"


def register(tracking: Tracking, project: Path, text: str, name: str) -> Registered:
    """Put the model of the run that `text` means (see lookup.find) under `name`, as its next version.

    Raises LookupFailed for a run that is not there or has no model, and for a name that MLflow does not take; TrackingError if
    the store fails.
    """
    if not name.strip() or any(c in FORBIDDEN for c in name):
        raise LookupFailed(
            f"the name of a registered model must hold none of {' '.join(FORBIDDEN)}, and not be empty, got {name!r}"
        )
    store = locate(tracking, project)
    if store.database and not store.database.exists():
        raise LookupFailed(f"no run is on record: there is no store at {store}; `deltarule run` makes one")
    try:
        with answering(store, f"nothing was registered as {name!r}"), store.lock():
            return _register(*connect(store), text, name, project)
    except LookupFailed:
        raise
    except TrackingError as error:
        raise TrackingError(f"{str(error).partition('; the outs are')[0]}; try again") from None


def _register(client: MlflowClient, experiment_id: str, text: str, name: str, project: Path) -> Registered:
    run = find(client, experiment_id, text, project)
    model = models.of_run(client, run)
    if model is None or str(model.status) != "READY":
        called = f"run {run.info.run_id} ({redact(run.info.run_name)})"
        if run.info.status != "FINISHED":
            raise LookupFailed(f"{called} has no model on record: it is {run.info.status}; choose a run that finished")
        raise LookupFailed(
            f"{called} has no model on record: it is a trial or a study, or its tracking.files leave out mlflow; run it again "
            "with tracking.files: [mlflow]"
        )
    _make(client, name)
    with _default_store(client.tracking_uri):
        made = client.create_model_version(name, f"models:/{model.model_id}", run.info.run_id, model_id=model.model_id)
    return Registered(name, int(made.version), run.info.run_id, model.model_id, redact(client.tracking_uri))


@contextmanager
def _default_store(uri: str) -> Iterator[None]:
    """A database's registry looks for the model in MLflow's default store, whatever client it was asked by."""
    import mlflow

    name = "MLFLOW_TRACKING_URI"
    before, set_before = mlflow.get_tracking_uri(), os.environ.get(name)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
        os.environ.pop(name, None)  # set_tracking_uri sets it too
        if set_before is not None:
            os.environ[name] = set_before


def _make(client: MlflowClient, name: str) -> None:
    """The name, unless it is there."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
