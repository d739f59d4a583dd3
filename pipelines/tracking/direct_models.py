"""The models and data sets of runs in MLflow's own sqlite database, without MLflow: the rest of what a run puts on record.

As in direct.py the rows are MLflow's own, held side by side by tests, and what is not known here is MLflow's. A run that is
sent so needs neither MLflow nor SQLAlchemy nor pandas: 2 s of processor time a run.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.tracking import direct
from pipelines.tracking.direct import add, copied, folder_of, now, opened

STATUS = {1: "PENDING", 2: "READY", 3: "FAILED"}
_OF_RUN = re.compile(r"source_run_id = '([^']*)' AND name = '([^']*)'")


class Dataset(NamedTuple):
    """As MLflow's."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


class InputTag(NamedTuple):
    """As MLflow's."""

    key: str
    value: str


class DatasetInput(NamedTuple):
    """As MLflow's."""

    dataset: Any
    tags: Sequence[Any] = ()


class LoggedModelOutput(NamedTuple):
    """As MLflow's."""

    model_id: str
    step: int


class LoggedModel(NamedTuple):
    """As MLflow's, but for its params and tags."""

    model_id: str
    experiment_id: str
    name: str
    artifact_location: str
    status: str
    model_type: str | None
    source_run_id: str | None


def entities(client: Any) -> Any:
    """Where Dataset, DatasetInput, InputTag and LoggedModelOutput are as this client takes them."""
    if isinstance(client, Client):
        return _ENTITIES
    from mlflow import entities as theirs

    return theirs


def put_out(client: Any, run_id: str) -> list[str]:
    """The ids of the models that a run has put out."""
    if isinstance(client, Client):
        return client.put_out(run_id)
    outputs = direct.mlflows(client).get_run(run_id).outputs
    return [one.model_id for one in (outputs.model_outputs if outputs else ())]


class Client(direct.Client):
    """With the methods of MlflowClient for models and data sets."""

    def log_inputs(self, run_id: str, datasets: Sequence[Any] = (), **named: Any) -> None:
        """Put rows on a run; each once, by name and digest."""
        if named:
            self.theirs.log_inputs(run_id, list(datasets), **named)
            return
        first: dict[tuple[str, str], Any] = {}
        for one in datasets:
            first.setdefault((one.dataset.name, one.dataset.digest), one)
        with opened(self.database, write=True) as connection:
            (experiment,) = connection.execute("SELECT experiment_id FROM runs WHERE run_uuid = ?", (run_id,)).fetchone()
            for given in first.values():
                dataset = _dataset(connection, experiment, given.dataset)
                edge = {"source_type": "DATASET", "source_id": dataset, "destination_type": "RUN", "destination_id": run_id}
                query = "SELECT 1 FROM inputs WHERE source_type = :source_type AND source_id = :source_id"
                query += " AND destination_type = :destination_type AND destination_id = :destination_id"
                if connection.execute(query, edge).fetchone() is None:
                    key = _edge(connection, edge)
                    tags = [{"input_uuid": key, "name": tag.key, "value": tag.value} for tag in given.tags]
                    add(connection, "input_tags", tags)

    def search_logged_models(self, experiment_ids: Sequence[str], filter_string: str = "", **named: Any) -> Any:
        """Those that a run has put out under a name, the newest first; any other filter is MLflow's."""
        match = _OF_RUN.fullmatch(filter_string)
        if match is None or named.keys() - {"max_results"}:
            return self.theirs.search_logged_models(list(experiment_ids), filter_string, **named)
        marks = ", ".join("?" * len(experiment_ids))
        where = f"experiment_id IN ({marks}) AND lifecycle_stage != 'deleted' AND source_run_id = ? AND name = ?"
        order = "ORDER BY creation_timestamp_ms DESC LIMIT ?"
        return self._models(f"{where} {order}", [*map(int, experiment_ids), *match.groups(), named.get("max_results", 100)])

    def _models(self, where: str, values: Sequence[Any]) -> list[LoggedModel]:
        columns = "model_id, experiment_id, name, artifact_location, status, model_type, source_run_id"
        with opened(self.database) as connection:
            rows = connection.execute(f"SELECT {columns} FROM logged_models WHERE {where}", values).fetchall()
        return [LoggedModel(a, str(b), c, d, STATUS.get(e, "UNSPECIFIED"), f, g) for a, b, c, d, e, f, g in rows]

    def create_logged_model(
        self,
        experiment_id: str,
        name: str,
        source_run_id: str | None = None,
        *,
        params: Mapping[str, str] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        """A model whose files are yet to come."""
        key, made = f"m-{uuid.uuid4().hex}", now()
        row = {
            "model_id": key,
            "experiment_id": int(experiment_id),
            "name": name,
            "artifact_location": f"{self.location(experiment_id)}/models/{key}/artifacts",
            "creation_timestamp_ms": made,
            "last_updated_timestamp_ms": made,
            "status": 1,
            "lifecycle_stage": "active",
            "model_type": model_type,
            "source_run_id": source_run_id,
            "status_message": None,
        }
        shown = {"model_id": key, "experiment_id": int(experiment_id)}
        with opened(self.database, write=True) as connection:
            add(connection, "logged_models", [row])
            values = [{**shown, "param_key": name, "param_value": str(value)} for name, value in (params or {}).items()]
            add(connection, "logged_model_params", values)
        return self._models("model_id = ?", [key])[0]

    def log_outputs(self, run_id: str, models: Sequence[Any]) -> None:
        """Say that a run has put out models."""
        with opened(self.database, write=True) as connection:
            for one in models:
                edge = {"source_type": "RUN_OUTPUT", "source_id": run_id, "destination_type": "MODEL_OUTPUT"}
                _edge(connection, {**edge, "destination_id": one.model_id}, one.step)

    def put_out(self, run_id: str) -> list[str]:
        """The ids of the models that a run has put out."""
        query = "SELECT destination_id FROM inputs WHERE source_type = 'RUN_OUTPUT' AND destination_type = 'MODEL_OUTPUT'"
        with opened(self.database) as connection:
            return [key for (key,) in connection.execute(f"{query} AND source_id = ?", (run_id,))]

    def log_model_artifacts(self, model_id: str, local_dir: str) -> None:
        """Copy all that a folder holds to where the files of a model are."""
        found = self._models("model_id = ?", [model_id])
        folder = folder_of(found[0].artifact_location) if found else None
        if folder is None:
            self.theirs.log_model_artifacts(model_id, local_dir)
        else:
            copied(Path(local_dir), folder)

    def finalize_logged_model(self, model_id: str, status: str) -> None:
        """Its files are whole, or will not be."""
        numbers = {name: number for number, name in STATUS.items()}
        with opened(self.database, write=True) as connection:
            query = "UPDATE logged_models SET status = ?, last_updated_timestamp_ms = ? WHERE model_id = ?"
            connection.execute(query, (numbers[status], now(), model_id))


class _Entities(NamedTuple):
    Dataset: Any
    DatasetInput: Any
    InputTag: Any
    LoggedModelOutput: Any


_ENTITIES = _Entities(Dataset, DatasetInput, InputTag, LoggedModelOutput)


def _dataset(connection: Any, experiment_id: int, given: Any) -> str:
    """The id of a data set; those of an experiment are kept once."""
    query = "SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?"
    found = connection.execute(query, (experiment_id, given.name, given.digest)).fetchone()
    if found is not None:
        return str(found[0])
    row = {
        "dataset_uuid": uuid.uuid4().hex,
        "experiment_id": experiment_id,
        "name": given.name,
        "digest": given.digest,
        "dataset_source_type": given.source_type,
        "dataset_source": given.source,
        "dataset_schema": given.schema,
        "dataset_profile": given.profile,
    }
    add(connection, "datasets", [row])
    return str(row["dataset_uuid"])


def _edge(connection: Any, ends: Mapping[str, str], step: int = 0) -> str:
    key = uuid.uuid4().hex
    add(connection, "inputs", [{**ends, "input_uuid": key, "step": step}])
    return key
