"""MLflow's own sqlite database, read and written without MLflow: to import it costs more than all that a study has to say.

Measured on one core: importing MlflowClient and opening its store 1.6 s, this 3 ms; a run of 250 points, 44 params and 15
tags by the client 115 ms, here 2 ms. `Client` has those methods of MlflowClient that are used to put runs on record, with
the same meaning and the same rows (tests hold them side by side), and hands every other one on to MlflowClient itself. It
is used where the versions and tables are the ones known here; else, and for servers, the client is.
"""

from __future__ import annotations

import math
import re
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from mlflow import MlflowClient

VERSIONS = ("3.17.",)  # of MLflow, whose rows were compared with ours
TABLES = {
    "runs": "artifact_uri deleted_time end_time entry_point_name experiment_id lifecycle_stage name run_uuid source_name "
    "source_type source_version start_time status user_id",
    "tags": "key run_uuid value",
    "params": "key run_uuid value",
    "datasets": "dataset_profile dataset_schema dataset_source dataset_source_type dataset_uuid digest experiment_id name",
    "inputs": "destination_id destination_type input_uuid source_id source_type step",
    "input_tags": "input_uuid name value",
    "logged_models": "artifact_location creation_timestamp_ms experiment_id last_updated_timestamp_ms lifecycle_stage model_id "
    "model_type name source_run_id status status_message",
    "logged_model_params": "experiment_id model_id param_key param_value",
    "metrics": "is_nan key run_uuid step timestamp value",
    "latest_metrics": "is_nan key run_uuid step timestamp value",
    "experiments": "artifact_location creation_time experiment_id last_update_time lifecycle_stage name workspace",
    "experiment_tags": "experiment_id key value",
}
LARGEST = 1.7976931348623157e308  # a database cannot hold inf; MLflow keeps this instead
NAME, USER = "mlflow.runName", "mlflow.user"
SECONDS, BRIEFLY = 20, 5  # to wait for a database that another process writes to, as MLflow does; to look at one
_NAMED = re.compile(r"[/\w.\- :]{1,250}")  # what MLflow takes as a name
_TAG = re.compile(r"tags\.`([^`']+)` = '([^']*)'")
_STATUS = re.compile(r"attributes\.status = '([A-Z]+)'")
_TAGGED = " AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)"
_ORDER = {"attributes.start_time ASC": "start_time, run_uuid", "attributes.start_time DESC": "start_time DESC, run_uuid"}


class Metric(NamedTuple):
    """As MLflow's: time in ms."""

    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    """As MLflow's."""

    key: str
    value: str


class RunTag(NamedTuple):
    """As MLflow's."""

    key: str
    value: str


@dataclass(frozen=True)
class Info:
    """What a run is, apart from what was logged."""

    run_id: str
    run_name: str
    experiment_id: str
    status: str
    start_time: int
    end_time: int | None
    artifact_uri: str
    lifecycle_stage: str
    user_id: str


@dataclass(frozen=True)
class Data:
    """What was logged; of each metric the latest."""

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


class Run(NamedTuple):
    """As MLflow's."""

    info: Info
    data: Data


class Experiment(NamedTuple):
    """As MLflow's."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str


def entities(client: Any) -> tuple[Any, Any, Any]:
    """Metric, Param and RunTag, as this client takes them."""
    if isinstance(client, Client):
        return Metric, Param, RunTag
    from mlflow.entities import Metric as Theirs
    from mlflow.entities import Param as TheirParam
    from mlflow.entities import RunTag as TheirTag

    return Theirs, TheirParam, TheirTag


def mlflows(client: Any) -> Any:
    """MLflow's own client of the same store: for what is asked of a run that is not here."""
    return client.theirs if isinstance(client, Client) else client


def known(database: Path) -> bool:
    """Whether the database is there, and of the MLflow whose tables are known here."""
    try:
        if not metadata.version("mlflow").startswith(VERSIONS) or not database.is_file():
            return False
        with opened(database, seconds=BRIEFLY) as connection:
            columns = {table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] for table in TABLES}
    except (metadata.PackageNotFoundError, sqlite3.Error):
        return False
    return all(" ".join(sorted(columns[table])) == TABLES[table] for table in TABLES)


class Client:
    """MlflowClient's methods on one database. Raises sqlite3.Error where that fails, else what MlflowClient raises."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self._theirs: MlflowClient | None = None

    @property
    def theirs(self) -> MlflowClient:
        """MLflow's own, for what is not done here."""
        if self._theirs is None:
            from mlflow import MlflowClient

            uri = f"sqlite:///{self.database}"
            self._theirs = MlflowClient(tracking_uri=uri, registry_uri=uri)
        return self._theirs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.theirs, name)

    # -- reading ------------------------------------------------------------------------------------------------------

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """None if there is none."""
        query = "SELECT experiment_id, name, artifact_location, lifecycle_stage FROM experiments WHERE name = ?"
        with opened(self.database) as connection:
            row = connection.execute(f"{query} AND workspace = 'default'", (name,)).fetchone()
        return None if row is None else Experiment(str(row[0]), *row[1:])

    def get_run(self, run_id: str) -> Any:
        """A run with its params, tags and latest metrics."""
        with opened(self.database) as connection:
            found = _runs(connection, [run_id])
        return found[0] if found else self.theirs.get_run(run_id)

    def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        *arguments: Any,
        max_results: int = 1000,
        order_by: Sequence[str] = ("attributes.start_time DESC",),
        **named: Any,
    ) -> Any:
        """Active runs with the tags and the status of a filter "tags.`a` = 'b' and tags.`c` = 'd' and attributes.status = 'E'".

        Any other filter is MLflow's.
        """
        wanted = _wanted(filter_string)
        if wanted is None or arguments or named or len(order_by) != 1 or order_by[0] not in _ORDER:
            named |= {"max_results": max_results, "order_by": list(order_by)}
            return self.theirs.search_runs(list(experiment_ids), filter_string, *arguments, **named)
        marks = ", ".join("?" * len(experiment_ids))
        query = f"SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active' AND experiment_id IN ({marks})"
        query += "".join(" AND status = ?" if len(one) == 1 else _TAGGED for one in wanted)
        values = [*map(int, experiment_ids), *(text for one in wanted for text in one), max_results]
        with opened(self.database) as connection:
            found = connection.execute(f"{query} ORDER BY {_ORDER[order_by[0]]} LIMIT ?", values).fetchall()
            return _runs(connection, [run_id for (run_id,) in found])

    def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        """Every point of one metric."""
        query = "SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? AND key = ?"
        with opened(self.database) as connection:
            rows = connection.execute(query, (run_id, key)).fetchall()
        return [Metric(name, math.nan if lost else value, time, step) for name, value, time, step, lost in rows]

    # -- writing ------------------------------------------------------------------------------------------------------

    def create_experiment(self, name: str, artifact_location: str | None = None, tags: Mapping[str, str] | None = None) -> str:
        """Its id. Names and places that are unlike ours are MLflow's matter, and a name that is taken."""
        usual = artifact_location is not None and artifact_location.startswith("file:///") and len(artifact_location) <= 256
        if not usual or not all(_NAMED.fullmatch(key) for key in (name, *(tags or {}))) or self.get_experiment_by_name(name):
            return str(self.theirs.create_experiment(name, artifact_location, dict(tags or {})))
        made = now()
        row = {"name": name, "artifact_location": artifact_location, "lifecycle_stage": "active", "workspace": "default"}
        with opened(self.database, write=True) as connection:
            add(connection, "experiments", [{**row, "experiment_id": None, "creation_time": made, "last_update_time": made}])
            (number,) = connection.execute("SELECT last_insert_rowid()").fetchone()
            labels = [{"experiment_id": number, "key": key, "value": value} for key, value in (tags or {}).items()]
            add(connection, "experiment_tags", labels)
        return str(number)

    def create_run(
        self, experiment_id: str, start_time: int | None = None, tags: Mapping[str, str] | None = None, run_name: str = ""
    ) -> Any:
        """A run that is RUNNING."""
        row = new_run(self.location(experiment_id), experiment_id, run_name, tags or {}, start_time or now())
        with opened(self.database, write=True) as connection:
            add(connection, "runs", [row])
            _set_tags(connection, row["run_uuid"], {**(tags or {}), NAME: run_name})
        return self.get_run(row["run_uuid"])

    def location(self, experiment_id: str) -> str:
        """Where the artifacts of an experiment stand."""
        with opened(self.database) as connection:
            query = "SELECT artifact_location FROM experiments WHERE experiment_id = ?"
            return str(connection.execute(query, (int(experiment_id),)).fetchone()[0]).rstrip("/")

    def log_batch(
        self, run_id: str, metrics: Sequence[Any] = (), params: Sequence[Any] = (), tags: Sequence[Any] = (), **named: Any
    ) -> None:
        """Add points, params and tags in one transaction. A point that is there (name, time, step, value) is not added twice."""
        if named or not all(_NAMED.fullmatch(one.key) for one in (*metrics, *params, *tags)):
            self.theirs.log_batch(run_id, metrics, params, tags, **named)  # which says what is wrong with them
            return
        with opened(self.database, write=True) as connection:
            held = dict(connection.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run_id,)))
            clash = next((one for one in params if held.get(one.key, one.value) != one.value), None)
            if clash is None:
                _set_params(connection, run_id, {one.key: one.value for one in params if one.key not in held})
                _add_points(connection, run_id, metrics)
                _set_tags(connection, run_id, {one.key: one.value for one in tags})
        if clash is not None:
            self.theirs.log_param(run_id, clash.key, clash.value)  # which refuses it

    def set_tag(self, run_id: str, key: str, value: Any) -> None:
        """One tag."""
        self.log_batch(run_id, tags=[RunTag(key, str(value))])

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> None:
        """Another status; a name goes by MLflow."""
        if name is not None:
            self.theirs.update_run(run_id, status, name)
        elif status is not None:
            with opened(self.database, write=True) as connection:
                connection.execute("UPDATE runs SET status = ? WHERE run_uuid = ?", (status, run_id))

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        """Its status, FINISHED unless given, and when it ended, in ms."""
        with opened(self.database, write=True) as connection:
            ended = (status or "FINISHED", end_time or now(), run_id)
            connection.execute("UPDATE runs SET status = ?, end_time = ? WHERE run_uuid = ?", ended)

    def insert(self, rows: Mapping[str, Sequence[Mapping[str, Any]]], tags: Mapping[str, Mapping[str, str]]) -> None:
        """Rows of whole new runs by table, and tags of others (run id -> name -> value), in one transaction: all or nothing."""
        with opened(self.database, write=True) as connection:
            for table, content in rows.items():
                add(connection, table, content)
            for run_id, values in tags.items():
                _set_tags(connection, run_id, values)

    # -- files --------------------------------------------------------------------------------------------------------

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> None:
        """Copy a file into a folder of the run's artifacts."""
        folder = self._artifacts(run_id)
        if folder is None:
            self.theirs.log_artifact(run_id, local_path, artifact_path)
        else:
            _copy(Path(local_path), folder / (artifact_path or "") / Path(local_path).name)

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        """Copy all that a folder holds."""
        folder = self._artifacts(run_id)
        if folder is None:
            self.theirs.log_artifacts(run_id, local_dir, artifact_path)
            return
        copied(Path(local_dir), folder / (artifact_path or ""))

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """A file that holds this text."""
        folder = self._artifacts(run_id)
        if folder is None:
            self.theirs.log_text(run_id, text, artifact_file)
        else:
            (folder / artifact_file).parent.mkdir(parents=True, exist_ok=True)
            (folder / artifact_file).write_text(text, encoding="utf-8")

    def _artifacts(self, run_id: str) -> Path | None:
        """The run's folder, where it is one of this machine."""
        return folder_of(self.get_run(run_id).info.artifact_uri)


# -- rows ---------------------------------------------------------------------------------------------------------------


@contextmanager
def opened(database: Path, write: bool = False, seconds: float = SECONDS) -> Iterator[sqlite3.Connection]:
    """A connection for one transaction."""
    connection = sqlite3.connect(database, timeout=seconds, isolation_level=None)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        yield connection
        connection.execute("COMMIT")
    finally:
        connection.close()  # which takes back what was not committed


def _runs(connection: sqlite3.Connection, run_ids: Sequence[str]) -> list[Run]:
    columns = "run_uuid, name, experiment_id, status, start_time, end_time, artifact_uri, lifecycle_stage, user_id"
    found = []
    for run_id in run_ids:
        row = connection.execute(f"SELECT {columns} FROM runs WHERE run_uuid = ?", (run_id,)).fetchone()
        if row is None:
            continue
        params, tags = (
            dict(connection.execute(f"SELECT key, value FROM {table} WHERE run_uuid = ?", (run_id,)))
            for table in ("params", "tags")
        )
        latest = connection.execute("SELECT key, value, is_nan FROM latest_metrics WHERE run_uuid = ?", (run_id,))
        metrics = {key: math.nan if lost else value for key, value, lost in latest}
        found.append(Run(Info(row[0], row[1], str(row[2]), *row[3:]), Data(params, tags, metrics)))
    return found


def _wanted(filter_string: str) -> list[tuple[str, ...]] | None:
    """(name, value) of each tag that a filter wants, (status,) if it wants one; None if it wants anything else."""
    parts = [part.strip() for part in filter_string.split(" and ")]
    found = [match.groups() for part in parts if (match := _TAG.fullmatch(part) or _STATUS.fullmatch(part))]
    return found if len(found) == len(parts) else None


def new_run(location: str, experiment_id: str, name: str, tags: Mapping[str, str], start_time: int) -> dict[str, Any]:
    """The row of a new run, as MLflow's create_run makes it."""
    run_id = uuid.uuid4().hex
    return {
        "run_uuid": run_id,
        "name": name,
        "artifact_uri": f"{location}/{run_id}/artifacts",
        "experiment_id": int(experiment_id),
        "source_type": "UNKNOWN",  # the UI reads the tags
        "source_name": "",
        "entry_point_name": "",
        "source_version": "",
        "user_id": tags.get(USER, "unknown"),
        "status": "RUNNING",
        "start_time": start_time,
        "end_time": None,
        "deleted_time": None,
        "lifecycle_stage": "active",
    }


def add(connection: sqlite3.Connection, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows, each with all columns of the table."""
    columns = TABLES[table].split()
    marks = ", ".join(f":{name}" for name in columns)
    connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)


def _set_params(connection: sqlite3.Connection, run_id: str, values: Mapping[str, str]) -> None:
    add(connection, "params", pairs(run_id, values))


def _set_tags(connection: sqlite3.Connection, run_id: str, values: Mapping[str, str]) -> None:
    query = "INSERT OR REPLACE INTO tags (key, value, run_uuid) VALUES (?, ?, ?)"
    connection.executemany(query, [(key, value, run_id) for key, value in values.items()])
    if NAME in values:
        connection.execute("UPDATE runs SET name = ? WHERE run_uuid = ?", (values[NAME], run_id))


def _add_points(connection: sqlite3.Connection, run_id: str, metrics: Iterable[Any]) -> None:
    """The points that are not there; the latest of a name is the one of the greatest step, then time, then value."""
    rows = [point(run_id, one.key, one.step, one.value, one.timestamp) for one in metrics]
    columns = "key, value, timestamp, step, is_nan, run_uuid"
    values = ":key, :value, :timestamp, :step, :is_nan, :run_uuid"
    connection.executemany(f"INSERT OR IGNORE INTO metrics ({columns}) VALUES ({values})", rows)
    connection.executemany(
        f"INSERT INTO latest_metrics ({columns}) VALUES ({values}) ON CONFLICT (key, run_uuid) DO UPDATE SET "
        "value = excluded.value, timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan "
        "WHERE (excluded.step, excluded.timestamp, excluded.value) > (step, timestamp, value)",
        rows,
    )


def pairs(run_id: str, values: Mapping[str, str]) -> list[dict[str, str]]:
    """Rows of params or tags."""
    return [{"run_uuid": run_id, "key": key, "value": value} for key, value in values.items()]


def point(run_id: str, name: str, step: int, value: float, time_ms: int) -> dict[str, Any]:
    """A row of metrics. A database holds neither NaN nor inf: MLflow keeps a flag, and the largest number."""
    lost = math.isnan(value)
    kept = 0.0 if lost else max(-LARGEST, min(LARGEST, float(value)))
    return {"run_uuid": run_id, "key": name, "value": kept, "timestamp": time_ms, "step": step, "is_nan": lost}


def folder_of(location: str) -> Path | None:
    """Where artifacts are, as a folder of this machine."""
    uri = urlsplit(location)
    return Path(unquote(uri.path)) if uri.scheme == "file" and not uri.netloc else None


def copied(source: Path, target: Path) -> None:
    """Copy all that a folder holds into another one."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            _copy(path, target / path.relative_to(source))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def now() -> int:
    """In ms since 1970."""
    return int(time.time() * 1000)
