"""A run as an MLflow model that takes raw rows: the run's files and a few lines of code that read them. Nothing is pickled."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

CODE = '''\
"""A network that deltarule trained, as MLflow loads and serves it: raw rows in, predictions and probabilities out."""

import _deltarule
import pandas
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

_deltarule.ours_first()  # a server may have been started where there is another folder pipelines/

from pipelines.data import DataError  # noqa: E402
from pipelines.results import load_model  # noqa: E402


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


def export(
    folder: Path,
    files: Iterable[Path],
    columns: Mapping[str, str],
    answers: Mapping[str, str],
    example: Mapping[str, Sequence[Any]],
) -> None:
    """Write the model into `folder`, which must not be there yet; all of it or nothing.

    `files` are what `load_model` needs, `columns` the raw columns, `answers` what comes out, each name -> MLflow's type, and
    `example` rows that it can be tried with.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        run, code, made = Path(scratch) / "run", Path(scratch) / "model.py", Path(scratch) / "model"
        run.mkdir()
        for file in files:
            shutil.copyfile(file, run / file.name)
        code.write_text(CODE, encoding="utf-8")
        _save(made, code, run, columns, answers, example)
        made.rename(folder)


def _save(
    made: Path,
    code: Path,
    run: Path,
    columns: Mapping[str, str],
    answers: Mapping[str, str],
    example: Mapping[str, Sequence[Any]],
) -> None:
    for name, value in (("MLFLOW_DISABLE_TELEMETRY", "true"), ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")):
        os.environ.setdefault(name, value)
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types.schema import ColSpec, Schema

    logging.getLogger("mlflow").setLevel(logging.ERROR)  # the import sets it to INFO
    import pandas

    inputs, outputs = (Schema([ColSpec(kind, name) for name, kind in named.items()]) for named in (columns, answers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about type hints
        save_model(
            made,
            python_model=str(code),
            artifacts={"run": str(run)},
            signature=ModelSignature(inputs, outputs),
            input_example=pandas.DataFrame(dict(example)),
            pip_requirements=[f"deltarule=={version('deltarule')}", f"mlflow=={version('mlflow')}"],
        )
    model = Model.load(made)
    flavor = model.flavors["python_function"]  # MLflow writes down where these came from, on this machine
    flavor["model_code_path"] = code.name
    flavor["artifacts"]["run"]["uri"] = "run"
    model.save(made / "MLmodel")
