"""Serve: predictions, models in other forms, MLflow's registry and pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from pipelines.cli.options import PARAMS, Changes, Json, Params, begin, experiment_of, launched
from pipelines.console import Console
from pipelines.project import project_of


def register(
    run: Annotated[str, Argument(metavar="RUN", help="Id of a run, its first characters, its name, or a folder runs/...")],
    name: Annotated[str, Option("--name", metavar="M", help="Of the model in the registry; made if need be.")],
    params: Params = PARAMS,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Put a run's model into MLflow's registry.

    As the next version of the model of that name.
    """
    from pipelines import tracking

    console, experiment = begin(params, changes, as_json)
    with console.reserved():
        made = tracking.register(experiment.tracking, project_of(Path()), run, name)
    console.say(f"{made.name} version {made.version} is the model of run {made.run_id}")
    console.say(f"serve it with: MLFLOW_TRACKING_URI={made.store} mlflow models serve --env-manager local -m {made.uri}")
    console.result(
        {"name": made.name, "version": made.version, "run_id": made.run_id, "model_id": made.model_id, "uri": made.uri}
    )


Model = Annotated[
    Path, Argument(metavar="MODEL", help="The folder of a run (runs/..., or its name; . for the pipeline's), or an export.")
]


def predict(
    model: Model,
    rows: Annotated[Path, Argument(metavar="FILE", help="Rows with the columns that the training rows had.")],
    out: Annotated[Path | None, Option("--out", metavar="FILE", help="CSV or Parquet; else standard output.")] = None,
    keep: Annotated[
        list[str] | None,
        Option("--keep", metavar="COLUMN", help="Of the rows, before the answers; may be given again."),
    ] = None,
) -> None:
    """Predict for the rows of a file.

    Raw rows in; predictions, and the probabilities of classes, out. The target may be there, and is passed over.
    """
    from pipelines.api.predict import predict as carry_out
    from pipelines.api.results import load_model

    console = Console(as_json=True)  # standard output is for the answers
    with console.progress("rows") as progress:
        network = load_model(launched(model))
        answered = carry_out(network, rows, out, lambda done: progress(done, None), keep or ())
    for sentence in answered.told():
        console.warn(sentence)
    if out is not None:
        console.say(f"{out}: {answered.rows} rows")


def export(
    model: Model,
    folder: Annotated[Path, Argument(metavar="DIR", help="Where to; must not be there yet.")],
    form: Annotated[
        Literal["mlflow", "onnx", "torch", "keras"], Option("--format", help="torch: a .pt2; keras: a .keras.")
    ] = "mlflow",
) -> None:
    """Write a run as an MLflow model, or its network for another program.

    An MLflow model takes raw rows, and is served with: mlflow models serve --env-manager local -m DIR. The others are the
    network alone: they take preprocessed rows, and give what comes before sigmoid or softmax.
    """
    from pipelines.export import export as carry_out

    carry_out(launched(model), folder, form)
    files = ", ".join(sorted(path.name for path in folder.iterdir()))
    served = f"serve it with: mlflow models serve --env-manager local -m {folder}"
    Console().say(f"{folder}: {served if form == 'mlflow' else files}")


def ui(
    params: Params = PARAMS,
    changes: Changes = None,
    port: Annotated[int, Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open MLflow on the project's store.

    On this machine only (127.0.0.1), until Ctrl-C.
    """
    from pipelines import tracking

    tracking.ui(experiment_of(params, changes), project_of(Path()), port)
