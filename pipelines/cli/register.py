"""The command register: a run's model into MLflow's registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import PARAMS, Changes, Json, Params, begin


def add_to(app: typer.Typer) -> None:
    """Put it among the others."""
    app.command()(register)


def register(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, its first characters, its name, or a folder runs/...")],
    name: Annotated[str, typer.Option("--name", metavar="M", help="Of the model in the registry; made if need be.")],
    params: Params = PARAMS,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Put a run's model into MLflow's registry.

    As the next version of the model of that name.
    """
    from pipelines import tracking
    from pipelines.project import project_of

    console, experiment = begin(params, changes, as_json)
    with console.reserved():
        made = tracking.register(experiment.tracking, project_of(Path()), run, name)
    console.say(f"{made.name} version {made.version} is the model of run {made.run_id}")
    console.say(f"serve it with: MLFLOW_TRACKING_URI={made.store} mlflow models serve --env-manager local -m {made.uri}")
    console.result(
        {"name": made.name, "version": made.version, "run_id": made.run_id, "model_id": made.model_id, "uri": made.uri}
    )
