"""The model of a run where MLflow 3 keeps models: as a logged model that the run has put out, `runs:/ID/model`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.tracking import model_files
from pipelines.tracking.direct_models import entities, put_out

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

NAME = "model"
PARAMS = ("model.hidden", "model.activation", "train.backend", "data.source", "seed")  # shown in the table of models


def send(client: MlflowClient, run: Run, folders: Mapping[str, str], root: Path) -> None:
    """Put MLflow models (name -> folder below `root`) on the run, each once, also where an earlier call was cut short."""
    for name, folder in folders.items():
        model = of_run(client, run, name) or _create(client, run, name)
        _link(client, run, model)
        if str(model.status) != "READY":
            _upload(client, run, model, root / folder)


def of_run(client: MlflowClient, run: Run, name: str = NAME) -> LoggedModel | None:
    """The model of that name that the run has put out; the first, of several."""
    wanted = f"source_run_id = '{run.info.run_id}' AND name = '{name}'"
    found = client.search_logged_models([run.info.experiment_id], filter_string=wanted, max_results=1)
    return found[0] if found else None


def _create(client: MlflowClient, run: Run, name: str) -> LoggedModel:
    params = client.get_run(run.info.run_id).data.params
    shown = {key: params[key] for key in PARAMS if key in params}
    return client.create_logged_model(run.info.experiment_id, name, run.info.run_id, params=shown, model_type="deltarule")


def _link(client: MlflowClient, run: Run, model: LoggedModel) -> None:
    """The run's page shows what it has put out; said once."""
    if model.model_id not in put_out(client, run.info.run_id):
        client.log_outputs(run.info.run_id, [entities(client).LoggedModelOutput(model.model_id, step=0)])


def _upload(client: MlflowClient, run: Run, model: LoggedModel, folder: Path) -> None:
    """Its files, which then name the run and the model they are of; its status goes last, and says that they are whole."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(folder, Path(scratch) / "model")
        of = {"run_id": run.info.run_id, "model_id": model.model_id, "artifact_path": model.artifact_location}
        model_files.describe(copy, of)
        client.log_model_artifacts(model.model_id, str(copy))
    client.finalize_logged_model(model.model_id, "READY")
