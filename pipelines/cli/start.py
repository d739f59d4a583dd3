"""Start: a project of one's own, and what a spec may say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from pipelines.cli.options import PARAMS, Changes, Json, Params, experiment_of, shown
from pipelines.console import Console


def new(
    folder: Annotated[Path, Argument(metavar="DIR", help="The folder of the project; made if need be.")],
    data: Annotated[Path, Option("--data", metavar="FILE", help="Rows to learn from: CSV, TSV or Parquet.")],
    target: Annotated[list[str], Option("--target", metavar="COL", help="What to predict; may be given several times.")],
    test: Annotated[Path | None, Option("--test", metavar="FILE", help="Test rows that are a file of their own.")] = None,
    task: Annotated[
        Literal["auto", "regression", "binary", "multiclass"], Option("--task", help="auto: by the target's values.")
    ] = "auto",
    changes: Annotated[
        list[str] | None,
        Option("--set", metavar="data.A=VALUE", help="How the file is read, say; written into params.yaml. Several times."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a project of your own from a file.

    Writes params.yaml, filled from a look at the data, and a pipeline; makes git and DVC ready. Overwrites nothing; to a
    .gitignore and a .dvcignore that are there it adds the lines that they lack.
    """
    from pipelines.new import create
    from pipelines.spec.file import values_of

    console = Console(as_json)
    made = create(folder, data, target, task, values_of(changes or []), test)
    inside = made.folder == Path().resolve()
    where, spec = (made.folder.name, "params.yaml") if inside else (shown(made.folder), f"{shown(made.folder)}/params.yaml")
    initialised = f"; initialised {' and '.join(made.initialised)}" if made.initialised else ""
    console.say(f"{where}: a project that predicts {', '.join(target)} from {made.source}{initialised}")
    for name, lines in made.added.items():
        console.say(f"{name} exists: added {lines} lines at its end")
    for name in made.kept:
        console.say(f"{name} exists: left as it is")
    suspicions = [str(suspicion) for suspicion in made.found.suspicions]
    problems = [f"fix in {spec} before it can run: {problem}" for problem in made.found.problems]
    for line in (*problems, *(f"check: {suspicion}" for suspicion in suspicions)):
        console.say(line)
    console.say(f"look at {spec}, then: {'' if inside else f'cd {where} && '}dvc repro")
    told = {name: getattr(made, name) for name in ("source", "initialised", "added", "kept")}
    console.result({"folder": str(made.folder), **told, "problems": made.found.problems, "suspicions": suspicions})


def schema() -> None:
    """Print the JSON Schema of the spec."""
    import json

    from pipelines.spec.documents import schema as of_the_spec

    typer.echo(json.dumps(of_the_spec(), indent=2, ensure_ascii=False))


def spec(params: Params = PARAMS, changes: Changes = None) -> None:
    """Print the resolved spec.

    Every value, overrides and defaults included.
    """
    from pipelines.spec import dump

    typer.echo(dump(experiment_of(params, changes)), nl=False)


def backends(as_json: Json = False) -> None:
    """List the backends.

    Installed or not, versions, devices, and what to install for the rest.
    """
    from pipelines.api.probe import look_at_all

    console, found = Console(as_json), look_at_all()
    rows = [
        (b["name"], "yes" if b["installed"] else "no", ", ".join(b["devices"]), ", ".join(map(" ".join, b["versions"].items())))
        for b in found
    ]
    console.table("backends", ("name", "installed", "devices", "versions"), rows)
    for backend in found:
        if not backend["installed"]:
            console.say(f"{backend['name']}: {backend['message']}")
    console.result({"backends": found})
