"""A run as it is on record, brought back: its tags, params and the small files that its outs were."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.tracking.lookup import find
from pipelines.tracking.redact import redact
from pipelines.tracking.store import Store, TrackingError, answering, connect, locate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from pipelines.spec import Tracking

# Of all that a run carries, what says what it was and what came of it. Models and figures can be large, and are not needed.
WANTED = ("params.yaml", "source", "data", "train", "validate", "test")


class NothingOnRecord(TrackingError):
    """There is no store yet."""

    exit_code = 2


@dataclass(frozen=True)
class Recorded:
    """A run: what the store says of it, and the files of WANTED below `folder`."""

    run_id: str
    name: str
    status: str  # FINISHED, FAILED, KILLED, RUNNING
    tags: dict[str, str]
    params: dict[str, str]
    folder: Path
    points: dict[str, dict[int, float]] = field(default_factory=dict)  # metric -> step -> value; of runs without files alone


def fetch(tracking: Tracking, project: Path, text: str, folder: Path) -> Recorded:
    """The one run that `text` means (see lookup.py), its files written below `folder`.

    Raises TrackingError: with exit code 2 where no run or several are meant, else if the store fails.
    """
    store = locate(tracking, project)
    _check_there(store, text)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with answering(store, f"the run {redact(text)!r} cannot be read"):
        with store.lock():
            client, experiment_id = connect(store)
        run = find(client, experiment_id, text, project)
        held = {file.path for file in client.list_artifacts(run.info.run_id)}
        folder.mkdir(parents=True, exist_ok=True)
        for name in WANTED:
            if name in held:
                client.download_artifacts(run.info.run_id, name, str(folder))
        points = {} if "train" in held else _points(client, run)
    tags, params = dict(run.data.tags), dict(run.data.params)
    return Recorded(run.info.run_id, run.info.run_name, run.info.status, tags, params, folder, points)


def _check_there(store: Store, text: str) -> None:
    if store.database and not store.database.exists():
        raise NothingOnRecord(
            f"no run is on record under {redact(text)!r}: there is no store at {store} yet; "
            "`dvc repro` or `deltarule run` makes it"
        )


def _points(client: MlflowClient, run: Run) -> dict[str, dict[int, float]]:
    """Of a point that was sent twice, the later."""
    found = {}
    for name in run.data.metrics:
        history = sorted(client.get_metric_history(run.info.run_id, name), key=lambda point: point.timestamp)
        found[name] = {point.step: point.value for point in history}
    return found
