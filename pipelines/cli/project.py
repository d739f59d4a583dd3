"""The commands of a project of one's own: new, predict and export, and code, which its pipeline calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.cli.options import PARAMS, Changes, Json, Params, begin, launched


def add_to(app: typer.Typer) -> None:
    """Put these commands among the others."""
    for command in (new, code, predict, export):
        app.command()(command)


def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the project; made if need be.")],
    data: Annotated[Path, typer.Option("--data", metavar="FILE", help="Rows to learn from: CSV, TSV or Parquet.")],
    target: Annotated[list[str], typer.Option("--target", metavar="COL", help="What to predict; may be given several times.")],
    task: Annotated[
        Literal["auto", "regression", "binary", "multiclass"], typer.Option("--task", help="auto: by the target's values.")
    ] = "auto",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="data.A=VALUE", help="How the file is read, say; written into params.yaml. Several times."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a project of your own from a file.

    Writes params.yaml, filled from a look at the data, and a pipeline; makes git and DVC ready. Overwrites nothing; to a
    .gitignore and a .dvcignore that are there it adds the lines that they lack.
    """
    from pipelines.api.launch import shown
    from pipelines.console import Console
    from pipelines.new import create
    from pipelines.spec.file import values_of

    console = Console(as_json)
    made = create(folder, data, target, task, values_of(changes or []))
    inside = made.folder == Path().resolve()
    where, spec = (made.folder.name, "params.yaml") if inside else (shown(made.folder), f"{shown(made.folder)}/params.yaml")
    initialised = f"; initialised {' and '.join(made.initialised)}" if made.initialised else ""
    console.say(f"{where}: a project that predicts {', '.join(target)} from {made.source}{initialised}")
    for name, lines in made.added.items():
        console.say(f"{name} was there: {lines} lines were added at its end")
    for name in made.kept:
        console.say(f"{name} was there, and is as it was")
    for problem in made.view.problems:
        console.say(f"to be settled in {spec} before it can run: {problem}")
    for suspicion in made.view.suspicions:
        console.say(f"to be looked at: {suspicion}")
    console.say(f"look at {spec}, then: {'' if inside else f'cd {where} && '}dvc repro")
    told = {"initialised": made.initialised, "added": made.added, "kept": made.kept}
    found = {"problems": made.view.problems, "suspicions": made.view.suspicions}
    console.result({"folder": str(made.folder), "source": made.source, **told, **found})


def code(
    params: Params = PARAMS,
    changes: Changes = None,
    into: Annotated[Path, typer.Option("--into", metavar="DIR", help="Where to.")] = Path("outputs/code"),
    as_json: Json = False,
) -> None:
    """Write a hash of deltarule's code, a file a stage.

    The pipeline of a project depends on them, so that a new version of deltarule re-runs what it may change.
    """
    from backends.weights import write_atomically
    from pipelines.spec import identity

    console, experiment = begin(params, changes, as_json)
    found = {stage: identity.source_of(stage, experiment.train.backend) for stage in identity.SOURCES}
    for stage, digest in found.items():
        write_atomically(into / stage, f"{digest}\n".encode())
    console.result({"code": found})


Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="The folder of a run (runs/..., or its name; . for the pipeline's), or an export.")
]


def predict(
    model: Model,
    rows: Annotated[Path, typer.Argument(metavar="FILE", help="Rows with the columns that the training rows had.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="CSV or Parquet; else standard output.")] = None,
) -> None:
    """Predict for the rows of a file.

    Raw rows in; predictions, and the probabilities of classes, out. The target may be there, and is passed over.
    """
    from pipelines.api.predict import predict as carry_out
    from pipelines.api.results import load_model
    from pipelines.console import Console, Counting

    console = Console(as_json=True)  # standard output is for the answers
    with Counting(console, "rows") as progress:
        answered = carry_out(load_model(launched(model)), rows, out, progress)
    for sentence in answered.told():
        console.warn(sentence)
    if out is not None:
        console.say(f"{out}: {answered.rows} rows")


def export(
    model: Model,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; must not be there yet.")],
    form: Annotated[
        Literal["mlflow", "onnx", "torch", "keras"], typer.Option("--format", help="torch: a .pt2; keras: a .keras.")
    ] = "mlflow",
) -> None:
    """Write a run as an MLflow model, or its network for another program.

    An MLflow model takes raw rows, and is served with: mlflow models serve --env-manager local -m DIR. The others are the
    network alone: they take preprocessed rows, and give what comes before sigmoid or softmax.
    """
    from pipelines.console import Console
    from pipelines.export import export as carry_out

    carry_out(launched(model), folder, form)
    if form == "mlflow":
        Console().say(f"{folder}: serve it with: mlflow models serve --env-manager local -m {folder}")
    else:
        Console().say(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
