"""Runs read back from the store, as plain data: what was put in, what came out, and each metric over its epochs.

A sqlite store is read by sqlite itself, in a few queries over MLflow's tables for all runs (`direct.Client` asks run by run),
and only read: 249 runs with 94 000 points take 0.4 s of processor time, MLflow's import alone 1.5. Where the tables are not as
known, and for servers, MLflow's client is asked. A test holds that both say the same.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking import direct
from pipelines.tracking.direct import LARGEST
from pipelines.tracking.store import Store, TrackingError, answering, locate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from pipelines.spec import Tracking

Curves = dict[str, dict[int, float]]  # metric -> step -> value
PARENT, STUDY, KIND = "mlflow.parentRunId", "deltarule.study", "deltarule.kind"
A_PAGE, A_QUERY, BUSY_SECONDS = 1000, 500, 5.0
BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"  # MLflow's own pages ask it: one metric of many runs
BULK_RUNS, BULK_POINTS = 100, 25_000  # the most that it takes, and gives


@dataclass(frozen=True)
class Recorded:
    """A run on record. Times are seconds since 1970, None where the store has none; metrics are the last values."""

    id: str
    name: str
    status: str  # RUNNING, FINISHED, FAILED, KILLED, SCHEDULED
    started: float | None
    ended: float | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]

    @property
    def parent(self) -> str | None:
        """The id of the study's run, if this is one of its trials."""
        return self.tags.get(PARENT)


def recorded(tracking: Tracking, project: Path, *, parent: str | None = None, children: bool = False) -> list[Recorded]:
    """The runs of the experiment, newest first: those that are no children; with `children` all; of `parent` its children.

    Makes no store and no experiment: where there is none, there are no runs. Raises TrackingError if the store fails.
    """
    store = locate(tracking, project)
    wanted = "child.value = :parent" if parent else "1" if children else "child.value IS NULL"
    with _reading(store):
        if store.database and not store.database.exists():
            return []
        found = _by_sqlite(store, lambda database: _rows(database, store.experiment, wanted, parent))
        if found is None:
            found = [run for run in _by_client(store) if _is_wanted(run, parent, children)]
    return sorted(found, key=lambda run: (-(run.started or 0.0), run.id))


def histories(tracking: Tracking, project: Path, ids: Sequence[str], names: Sequence[str]) -> dict[str, Curves]:
    """Run id -> metric -> step -> value, the last written of each step. A metric that a run has not is absent there.

    Raises TrackingError if the store fails.
    """
    store = locate(tracking, project)
    curves: dict[str, Curves] = {run_id: {} for run_id in ids}
    with _reading(store):
        points = _by_sqlite(store, lambda database: _points(database, ids, names)) if ids and names else []
        for run_id, name, step, value in _points_of_client(store, ids, names) if points is None else points:
            curves[run_id].setdefault(name, {})[step] = value
    return curves


def texts(tracking: Tracking, project: Path, ids: Sequence[str], place: str) -> dict[str, str]:
    """Run id -> what its artifact at `place` holds, of the runs that have it. Raises TrackingError if the store fails."""
    store, found = locate(tracking, project), {}
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with _reading(store), tempfile.TemporaryDirectory() as scratch:
        client = client_of(store)
        for run_id in ids:
            if place in {held.path for held in client.list_artifacts(run_id, place.rpartition("/")[0])}:
                (folder := Path(scratch) / run_id).mkdir()
                found[run_id] = Path(client.download_artifacts(run_id, place, str(folder))).read_text(encoding="utf-8")
    return found


@contextmanager
def _reading(store: Store) -> Iterator[None]:
    """A store that fails leaves nothing to be sent again."""
    try:
        with answering(store, "reading"):
            yield
    except TrackingError as error:
        raise TrackingError(f"the runs cannot be read: {error.reason}; nothing was changed") from None


def _is_wanted(run: Recorded, parent: str | None, children: bool) -> bool:
    return run.parent == parent if parent else children or run.parent is None


# -- by sqlite ------------------------------------------------------------------------------------------------------------

RUNS = """SELECT run.run_uuid, run.name, run.status, run.start_time, run.end_time FROM runs run
JOIN experiments experiment ON experiment.experiment_id = run.experiment_id
LEFT JOIN tags child ON child.run_uuid = run.run_uuid AND child.key = 'mlflow.parentRunId'
WHERE experiment.name = :experiment AND run.lifecycle_stage = 'active' AND """


def _by_sqlite(store: Store, read: Any) -> Any:
    """What `read` makes of the database; None if the store is no such database, or its tables are others than known here."""
    if not store.database:
        return None
    with closing(sqlite3.connect(f"{store.database.as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as database:
        database.execute("BEGIN")  # one state of the store, whoever writes meanwhile
        database.execute("SELECT count(*) FROM sqlite_master")  # is it locked? Asked first, since MLflow would wait long
        return read(database) if direct.known(store.database) else None


def _rows(database: sqlite3.Connection, experiment: str, wanted: str, parent: str | None) -> list[Recorded]:
    heads = database.execute(RUNS + wanted, {"experiment": experiment, "parent": parent}).fetchall()
    ids = [head[0] for head in heads]
    texts: dict[str, dict[str, dict[str, Any]]] = {table: {i: {} for i in ids} for table in ("params", "tags", "latest_metrics")}
    for table, held in texts.items():
        lost = "is_nan" if table == "latest_metrics" else "0"
        for run_id, key, value, nan in _chosen(database, f"SELECT run_uuid, key, value, {lost} FROM {table}", ids):
            held[run_id][key] = number(value, nan) if table == "latest_metrics" else value
    return [
        Recorded(
            run_id, name or "", status, _seconds(start), _seconds(end),
            texts["params"][run_id], texts["latest_metrics"][run_id], texts["tags"][run_id],
        )
        for run_id, name, status, start, end in heads
    ]  # fmt: skip


def _points(database: sqlite3.Connection, ids: Sequence[str], names: Sequence[str]) -> list[tuple[str, str, int, float]]:
    among = ", ".join("?" * len(names))
    query = f"SELECT run_uuid, key, step, value, is_nan, timestamp FROM metrics WHERE key IN ({among}) AND"
    rows = sorted(_chosen(database, query, ids, names), key=lambda row: (row[2], row[5]))
    return [(run_id, name, step, number(value, nan)) for run_id, name, step, value, nan, _ in rows]


def _chosen(database: sqlite3.Connection, query: str, ids: Sequence[str], values: Sequence[str] = ()) -> Iterator[Any]:
    """The rows of these runs, some hundred runs a query."""
    query = query if query.endswith("AND") else f"{query} WHERE"
    for some in parts(ids, A_QUERY):
        yield from database.execute(f"{query} run_uuid IN ({', '.join('?' * len(some))})", [*values, *some])


def number(value: float, nan: bool = False) -> float:
    """As it was logged: NaN has a flag in MLflow, infinity is its largest number."""
    if nan:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) >= LARGEST else float(value)


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def parts(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Pieces of at most `size`."""
    return (values[start : start + size] for start in range(0, len(values), size))


# -- by MLflow's client ---------------------------------------------------------------------------------------------------


def client_of(store: Store) -> MlflowClient:
    """A client that makes nothing."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)  # the import sets it to INFO
    return MlflowClient(tracking_uri=store.uri, registry_uri=store.uri)


def _by_client(store: Store) -> Iterable[Recorded]:
    client = client_of(store)
    experiment = client.get_experiment_by_name(store.experiment)
    token = None
    while experiment is not None:
        page = client.search_runs([experiment.experiment_id], max_results=A_PAGE, page_token=token)
        yield from map(_plain, page)
        token = page.token
        if not token:
            return


def _plain(run: Run) -> Recorded:
    metrics = {name: number(value, value != value) for name, value in run.data.metrics.items()}
    return Recorded(
        run.info.run_id, run.info.run_name or "", run.info.status, _seconds(run.info.start_time), _seconds(run.info.end_time),
        dict(run.data.params), metrics, dict(run.data.tags),
    )  # fmt: skip


def _points_of_client(store: Store, ids: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, str, int, float]]:
    client = client_of(store)
    over_http = store.uri.startswith(("http://", "https://"))
    for name in names:
        for some in parts(ids, BULK_RUNS):
            found = _bulk(client, some, name) if over_http else None
            for run_id, metric in _one_by_one(client, some, name) if found is None else found:
                yield run_id, name, metric["step"], number(metric["value"], metric["value"] != metric["value"])


def _bulk(client: MlflowClient, ids: Sequence[str], name: str) -> list[tuple[str, dict[str, Any]]] | None:
    """One request for many runs; None where the server has no such address, or has more points than it gives at once."""
    from mlflow.utils.rest_utils import http_request

    credentials = client._tracking_client.store.get_host_creds()
    ask: Callable[..., Any] = http_request
    answer = ask(credentials, BULK, "GET", params={"run_id": list(ids), "metric_key": name})
    found = answer.json()["metrics"] if answer.status_code == 200 else None
    if found is None or len(found) >= BULK_POINTS:
        return None
    return [(metric["run_id"], metric) for metric in sorted(found, key=lambda point: (point["step"], point["timestamp"]))]


def _one_by_one(client: MlflowClient, ids: Sequence[str], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for run_id in ids:
        history = client.get_metric_history(run_id, name)
        for metric in sorted(history, key=lambda point: (point.step, point.timestamp)):
            yield run_id, {"step": metric.step, "value": metric.value}
