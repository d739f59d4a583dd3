"""The model of a run as an MLflow model that takes raw rows: files, and code that reads them; no pickle."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.redact import HIDDEN, redact, redacted
from pipelines.tracking.query import found_run
from pipelines.tracking.store import LookupFailed, TrackingError, quiet, settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

    from pipelines.spec import Tracking

CODE = '''\
"""A network that deltarule trained, as MLflow loads and serves it: raw rows in, predictions and probabilities out."""

import _deltarule
import numpy
import pandas
from mlflow.exceptions import MlflowException
from mlflow.models import Model as Saved
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, scoring_server
from mlflow.types.schema import AnyType, ColSpec, Schema

_deltarule.ours_first()  # a server may have been started where there is another folder pipelines/

from deltarule import DataError, load_model  # noqa: E402
from pipelines.data.rows import text_columns  # noqa: E402


class Cells(Schema):
    """Columns of such a model where rows come in: what a cell must hold the model says, as `deltarule predict` does.

    MLflow's casts would make 1 of a 1.5 for long, and True of "no" and null for boolean, guess the order of a date, and
    refuse "$5" and whole numbers for double.
    """

    def pandas_types(self):
        return [numpy.dtype(object) for _ in self.inputs]


def get_input_schema(saved):
    schema = theirs(saved)
    if schema is None or "deltarule" not in (saved.metadata or {}):
        return schema
    cells = Cells([ColSpec(AnyType(), name, required=False) for name in schema.input_names()])
    cells.format = saved.metadata.get("format", {})
    return cells


def parse_csv_input(csv_input, schema=None):
    """A posted text as `deltarule predict` reads it: MLflow takes NA and null for no value."""
    if not hasattr(schema, "format"):
        return their_parser(csv_input, schema)
    try:
        return pandas.DataFrame(text_columns(csv_input.read(), schema.format, schema.input_names()))
    except DataError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from None


theirs, their_parser = Saved.get_input_schema, scoring_server.parse_csv_input
Saved.get_input_schema, scoring_server.parse_csv_input = get_input_schema, parse_csv_input


class Model(PythonModel):
    def load_context(self, context):
        self.model = load_model(context.artifacts["run"])

    def predict(self, context, model_input: pandas.DataFrame, params=None) -> pandas.DataFrame:
        try:
            return pandas.DataFrame(self.model.answers(model_input))
        except DataError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


set_model(Model())
'''
# What prediction computes with: a model is to answer the same wherever it is installed.
REQUIRED = ("deltarule", "mlflow", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "scikit-learn")
NAME = "model"
PARAMS = ("model.hidden", "model.activation", "train.backend", "data.source", "seed")  # shown in the table of models
FILES = "deltarule.files.sha256"  # tag of a logged model
FORBIDDEN = "/:.%\"'"  # in a registered name: it stands in URIs and in searches


# -- writing --


def export(
    folder: Path,
    files: Iterable[Path],
    metadata: Mapping[str, object],
    types: Mapping[str, tuple[str, bool]],
    answers: Mapping[str, str],
    example: Mapping[str, Sequence[Any]],
) -> None:
    """Write the model into `folder`, which must not be there yet; all of it or nothing.

    `files`: what `load_model` needs; `metadata`: what the raw columns hold, and data.format; `types` of the columns:
    MLflow's, and whether there must be a value; `answers`: name -> MLflow's type; `example`: rows to try it with.

    Secrets in the files are left out; raises TrackingError if that would change what the model answers.
    """
    import pandas

    place = tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.")
    with place as scratch, warnings.catch_warnings(), settings():
        warnings.simplefilter("ignore")  # about type hints, in MLflow's own modules too
        quiet()
        from mlflow.models import Model, ModelSignature
        from mlflow.pyfunc import save_model
        from mlflow.types.schema import ColSpec, Schema

        run, code, made = Path(scratch) / "run", Path(scratch) / "model.py", Path(scratch) / "model"
        run.mkdir()
        for file in files:
            _copy(file, run / file.name)
        code.write_text(CODE, encoding="utf-8")
        inputs = Schema([ColSpec(kind, name, required=needed) for name, (kind, needed) in types.items()])
        outputs = Schema([ColSpec(kind, name) for name, kind in answers.items()])
        save_model(
            made,
            python_model=str(code),
            artifacts={"run": str(run)},
            signature=ModelSignature(inputs, outputs),
            input_example=pandas.DataFrame(dict(example), dtype=object),
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIRED],
            metadata={"deltarule": version("deltarule"), **metadata},
        )
        description = Model.load(made)
        flavor = description.flavors["python_function"]  # which names this machine's folders
        flavor["model_code_path"] = code.name
        flavor["artifacts"]["run"]["uri"] = "run"
        description.save(made / "MLmodel")
        made.rename(folder)


def _copy(file: Path, to: Path) -> None:
    content = json.loads(file.read_text(encoding="utf-8")) if file.suffix == ".json" else {}
    clean = redacted(content)
    # What the answers depend on.
    meaning = {key: value for key, value in clean.get("spec", {}).get("data", clean).items() if key != "source"}
    if HIDDEN in json.dumps(meaning):
        raise TrackingError(
            "a column is called as secrets are, and the spec says of it what would be left out of the model; rename the column"
        )
    if clean == content:
        shutil.copyfile(file, to)
    else:
        to.write_text(json.dumps(clean, indent=2, ensure_ascii=False), "utf-8")


# -- on the run --


def send(client: MlflowClient, run: Run, name: str, folder: Path) -> None:
    """Put an MLflow model on the run, `runs:/ID/NAME`, once."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    model, now = of_run(client, run, name), client.get_run(run.info.run_id)
    if model is None:
        shown = {key: now.data.params[key] for key in PARAMS if key in now.data.params}
        model = client.create_logged_model(run.info.experiment_id, name, run.info.run_id, params=shown, model_type="deltarule")
    outputs = now.outputs.model_outputs if now.outputs else ()
    if model.model_id not in [one.model_id for one in outputs]:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    if str(model.status) != "READY":
        with tempfile.TemporaryDirectory() as scratch:
            copy = shutil.copytree(folder, Path(scratch) / "model")
            description = Model.load(copy)  # which then names the run and the model that the files are of
            description.run_id, description.model_id = run.info.run_id, model.model_id
            description.artifact_path = model.artifact_location
            description.save(copy / "MLmodel")
            client.log_model_artifacts(model.model_id, str(copy))
            client.set_logged_model_tags(model.model_id, {FILES: _digest(copy)})
        client.finalize_logged_model(model.model_id, "READY")  # last: it says that the files are whole


def of_run(client: MlflowClient, run: Run, name: str = NAME) -> LoggedModel | None:
    """The model of that name that the run has put out; the first, of several."""
    wanted = f"source_run_id = '{run.info.run_id}' AND name = '{name}'"
    found = client.search_logged_models([run.info.experiment_id], filter_string=wanted, max_results=1)
    return found[0] if found else None


# -- in the registry --


@dataclass(frozen=True)
class Registered:
    """What the registry now holds."""

    name: str
    version: int
    run_id: str
    model_id: str
    store: str  # without secrets
    uri: str  # as `mlflow models serve` takes it


def register(tracking: Tracking, project: Path, text: str, name: str) -> Registered:
    """Put the model of the run that `text` means (see query.find_run) under `name`, as its next version.

    Raises LookupFailed for a run without a model and a name that MLflow does not take, TrackingError if the store fails.
    """
    if not name.strip() or any(c in FORBIDDEN for c in name):
        raise LookupFailed(
            f"the name of a registered model must hold none of {' '.join(FORBIDDEN)}, and not be empty, got {name!r}"
        )
    doing = f"nothing was registered as {name!r}"
    with found_run(tracking, project, text, doing, "try again") as (client, run):
        model = of_run(client, run)
        if model is None or str(model.status) != "READY":
            called = f"run {run.info.run_id} ({redact(run.info.run_name)})"
            if run.info.status != "FINISHED":
                raise LookupFailed(f"{called} has no model on record: it is {run.info.status}; choose a run that finished")
            raise LookupFailed(
                f"{called} has no model on record: it is a trial or a study, or its tracking.files leave out mlflow; "
                "run it again with tracking.files: [mlflow]"
            )
        before = client.search_registered_models(f"name = '{name}'")
        if not before:
            client.create_registered_model(name)
        made = client.create_model_version(name, model.artifact_location, run.info.run_id, model_id=model.model_id)
        if fault := _fault(client, made, model):
            client.delete_model_version(name, made.version)
            if not before:
                client.delete_registered_model(name)
            raise TrackingError(f"{doing}: {fault}")
        store, uri = redact(client.tracking_uri), f"models:/{name}/{made.version}"
        return Registered(name, int(made.version), run.info.run_id, model.model_id, store, uri)


def _fault(client: MlflowClient, made: ModelVersion, model: LoggedModel) -> str:
    """What is wrong with the files of a version; their code is not imported."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as scratch:
        try:
            uri = client.get_model_version_download_uri(made.name, made.version)
            found = _digest(Path(download_artifacts(uri, dst_path=scratch, tracking_uri=client.tracking_uri)))
        except (OSError, MlflowException) as error:
            return f"the files of its model cannot be read from {model.artifact_location} ({error})"
    same = found == model.tags.get(FILES, found)
    return "" if same else f"the files of its model in {model.artifact_location} are not those that the run put out"


def _digest(folder: Path) -> str:
    """SHA-256 over names and bytes of the files of a model."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()
