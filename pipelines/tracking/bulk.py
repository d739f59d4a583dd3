"""Many complete runs into a database at once, through MLflow's own tables: a tenth of what its client takes for them.

Measured for a run of 250 points, 44 params and 15 tags, CPU on one core: MlflowClient 115 ms (create_run, log_batch,
update_run; eight transactions, and an object of the ORM a row), the store's own methods 70 ms, this 9 ms. It is used where
the tables are the ones known here; else, and for servers, the client is. A test holds that both leave the same rows.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.tracking import uploader
from pipelines.tracking.events import Event
from pipelines.tracking.redact import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT, NUMBER = "mlflow.parentRunId", "deltarule.trial"
NAME, USER = "mlflow.runName", "mlflow.user"
COLUMNS = {
    "SqlRun": "artifact_uri deleted_time end_time entry_point_name experiment_id lifecycle_stage name run_uuid source_name "
    "source_type source_version start_time status user_id",
    "SqlTag": "key run_uuid value",
    "SqlParam": "key run_uuid value",
    "SqlMetric": "is_nan key run_uuid step timestamp value",
    "SqlLatestMetric": "is_nan key run_uuid step timestamp value",
}


@dataclass(frozen=True)
class Child:
    """A child as it is to be on record, within MLflow's limits and without secrets."""

    number: int
    name: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: Mapping[tuple[str, int], float]  # (name, step) -> value

    @classmethod
    def of(cls, events: Sequence[Event], tags: Mapping[str, str], number: int) -> Child:
        """From its events, of which the first is its creation and the last its end, and further tags."""
        tags = {**uploader.merged(events, "tags"), **tags, NUMBER: str(number)}
        params = uploader.merged(events, "params")
        return cls(
            number,
            redact(events[0].values["name"]),
            events[-1].values["status"],
            {key: redact(value)[: uploader.TAG_CHARACTERS] for key, value in tags.items()},
            {key: redact(value)[: uploader.PARAM_CHARACTERS] for key, value in params.items()},
            {(uploader.metric_name(name), step): value for name, step, value in uploader.points(events)},
        )


def database(client: MlflowClient) -> Any:
    """The database behind a client, if its tables are those that are known here; else None."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = getattr(getattr(client, "_tracking_client", None), "store", None)
    if type(store) is not SqlAlchemyStore:
        return None
    found = {name: " ".join(sorted(c.name for c in table.__table__.columns)) for name, table in _tables().items()}
    return store if found == COLUMNS else None


def _tables() -> dict[str, Any]:
    from mlflow.store.tracking.dbmodels import models

    return {name: getattr(models, name) for name in COLUMNS}


def insert(store: Any, experiment_id: str, parent_id: str, children: Sequence[Child], parent_tags: Mapping[str, str]) -> None:
    """Write the children, and tags of their parent: all of it or nothing."""
    location = store.get_experiment(experiment_id).artifact_location.rstrip("/")
    now = int(time.time() * 1000)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    for place, child in enumerate(children):
        # Begun a millisecond apart, so that lists by time are in the order of the numbers.
        _add(rows, child, uuid.uuid4().hex, int(experiment_id), location, now - len(children) + place)
    tables = _tables()
    with store.ManagedSessionMaker(read_only=False) as session:
        for name, table in tables.items():
            if rows[name]:
                session.execute(table.__table__.insert(), rows[name])
        for key, value in parent_tags.items():
            session.merge(tables["SqlTag"](run_uuid=parent_id, key=key, value=value))


def _add(rows: dict[str, list[dict[str, Any]]], child: Child, run_id: str, experiment_id: int, location: str, now: int) -> None:
    rows["SqlRun"].append(
        {
            "run_uuid": run_id,
            "name": child.name,
            "artifact_uri": f"{location}/{run_id}/artifacts",
            "experiment_id": experiment_id,
            "source_type": "UNKNOWN",  # as MLflow's create_run has it; the UI reads the tags
            "source_name": "",
            "entry_point_name": "",
            "source_version": "",
            "user_id": child.tags.get(USER, "unknown"),
            "status": child.status,
            "start_time": now,
            "end_time": None,
            "deleted_time": None,
            "lifecycle_stage": "active",
        }
    )
    rows["SqlTag"] += _pairs(run_id, {**child.tags, NAME: child.name})
    rows["SqlParam"] += _pairs(run_id, child.params)
    points = [_point(run_id, name, step, value, now) for (name, step), value in child.points.items()]
    rows["SqlMetric"] += points
    rows["SqlLatestMetric"] += {point["key"]: point for point in sorted(points, key=lambda point: point["step"])}.values()


def _pairs(run_id: str, values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"run_uuid": run_id, "key": key, "value": value} for key, value in values.items()]


def _point(run_id: str, name: str, step: int, value: float, now: int) -> dict[str, Any]:
    """A database holds neither NaN nor inf: MLflow keeps a flag, and the largest number."""
    lost = math.isnan(value)
    kept = 0.0 if lost else max(-uploader.LARGEST, min(uploader.LARGEST, float(value)))
    return {"run_uuid": run_id, "key": name, "value": kept, "timestamp": now, "step": step, "is_nan": lost}
