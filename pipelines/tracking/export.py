"""A run as an MLflow model that takes raw rows: the run's files and a few lines of code that read them. Nothing is pickled."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.tracking import model_files
from pipelines.tracking.redact import HIDDEN, redacted
from pipelines.tracking.store import TrackingError

CODE = '''\
"""A network that deltarule trained, as MLflow loads and serves it: raw rows in, predictions and probabilities out."""

import _deltarule
import numpy
import pandas
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from mlflow.types.schema import DataType, Schema

_deltarule.ours_first()  # a server may have been started where there is another folder pipelines/

from deltarule import DataError, load_model  # noqa: E402


def pandas_types(schema):
    """MLflow 3.17 refuses CSV where a column is of any type; here such cells stay the text that they are."""
    return [one.type.to_pandas() if isinstance(one.type, DataType) else numpy.dtype(object) for one in schema.inputs]


Schema.pandas_types = pandas_types


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
# What prediction computes with, beside deltarule itself: a model is to answer the same wherever it is installed.
REQUIRED = ("deltarule", "mlflow", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "scikit-learn")


def export(
    folder: Path,
    files: Iterable[Path],
    columns: Mapping[str, str],
    answers: Mapping[str, str],
    example: Mapping[str, Sequence[Any]],
) -> None:
    """Write the model into `folder`, which must not be there yet; all of it or nothing.

    `files` are what `load_model` needs, `columns` the raw columns and what they hold, `answers` what comes out, name -> MLflow's
    type, and `example` rows that it can be tried with. Secrets in the files are left out; raises TrackingError if that would
    change what the model answers.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        run, code, made = Path(scratch) / "run", Path(scratch) / "model.py", Path(scratch) / "model"
        run.mkdir()
        for file in files:
            _copy(file, run / file.name)
        code.write_text(CODE, encoding="utf-8")
        required = [f"{name}=={version(name)}" for name in REQUIRED]
        save = model_files.save if model_files.known(columns) else save_by_mlflow
        save(model_files.Written(code, run, columns, answers, example, required), made)
        made.rename(folder)


def _copy(file: Path, to: Path) -> None:
    if file.suffix != ".json":
        shutil.copyfile(file, to)
        return
    content = json.loads(file.read_text(encoding="utf-8"))
    clean = redacted(content)
    if HIDDEN in json.dumps(_meaning(clean)):  # by this, or in the log of the run, which these files may come from
        raise TrackingError(
            "a column is called as secrets are, and the spec says of it what would be left out of the model; rename the column"
        )
    to.write_text(
        file.read_text(encoding="utf-8") if clean == content else json.dumps(clean, indent=2, ensure_ascii=False), "utf-8"
    )


def _meaning(content: dict[str, Any]) -> Any:
    """What the answers depend on: of a run the block of the data, but for where they lay; of the data everything else."""
    block = content.get("spec", {}).get("data", content)
    return {key: value for key, value in block.items() if key != "source"}


def save_by_mlflow(model: model_files.Written, folder: Path) -> None:
    """As model_files.save, by whichever MLflow is installed."""
    for name, value in (("MLFLOW_DISABLE_TELEMETRY", "true"), ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")):
        os.environ.setdefault(name, value)
    import pandas

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about type hints, in MLflow's own modules too
        from mlflow.models import Model, ModelSignature
        from mlflow.pyfunc import save_model
        from mlflow.types.schema import AnyType, ColSpec, Schema

        logging.getLogger("mlflow").setLevel(logging.ERROR)  # the import sets it to INFO
        any_type: Any = AnyType
        # Any type: MLflow takes no whole number for a double and no date for a text; what a cell must be, the model itself says.
        inputs = Schema([ColSpec(any_type(), name) for name in model.columns])
        outputs = Schema([ColSpec(kind, name) for name, kind in model.answers.items()])
        save_model(
            folder,
            python_model=str(model.code),
            artifacts={"run": str(model.run)},
            signature=ModelSignature(inputs, outputs),
            input_example=pandas.DataFrame(dict(model.example)),
            pip_requirements=list(model.requirements),
            metadata={"columns": dict(model.columns)},
        )
    description = Model.load(folder)
    flavor = description.flavors["python_function"]  # MLflow writes down where these came from, on this machine
    flavor["model_code_path"] = model.code.name
    flavor["artifacts"]["run"]["uri"] = "run"
    description.save(folder / "MLmodel")
