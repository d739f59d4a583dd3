"""The commands `runs` and `compare`: what is on record, and what it says. A command parses, calls and prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.options import PARAMS, Changes, Json, Params

if TYPE_CHECKING:
    from pipelines.console import Console

Study = Annotated[str | None, typer.Option("--study", metavar="STUDY", help="The trials of this study.")]
Where = Annotated[
    str | None, typer.Option("--where", metavar="EXPR", help="Runs of which this is true: 'activation = relu and best_val_loss < 0.1'.")
]
USUAL_LIMIT = 20


def add_to(app: typer.Typer) -> None:
    """Put these commands among the others."""
    app.command()(runs)


def runs(
    where: Where = None,
    study: Study = None,
    children: Annotated[bool, typer.Option("--children", help="With the trials of all studies.")] = False,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B", help="Which: params, metrics, tags, and id, name, status, started ...")
    ] = None,
    sort: Annotated[str | None, typer.Option("--sort", metavar="KEY", help="From the least on; newest first unless given.")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help=f"How many at most; {USUAL_LIMIT} in a table.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them in the table.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output: whole values of these columns.")] = False,
    params: Params = PARAMS,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """List the runs on record.

    Newest first. A study counts as one run; --study STUDY lists its trials.
    """
    from pipelines.compare.choose import choose
    from pipelines.compare.listing import listing
    from pipelines.console import Console
    from pipelines.options import experiment_of
    from pipelines.project import project_of

    _not_both(as_csv and as_json, "--csv and --json")
    _not_both(everything and limit is not None, "--all and --limit")
    console, tracking = Console(as_json or as_csv), experiment_of(params, changes).tracking
    with console.reserved():
        found = choose(tracking, project_of(Path()), study=study, where=where, children=children)
    names = None if columns is None else [name.strip() for name in columns.split(",") if name.strip()]
    if not found:
        console.say("no run matches" if where else "no runs are on record; `deltarule run` and `dvc repro` make some")
        names = None
    most = limit if everything or as_csv or as_json else limit or USUAL_LIMIT
    table = listing(found, names, sort if found else None, reverse, most)
    if as_csv:
        sys.stdout.write(table.csv())
    elif not as_json and found:
        console.table("", table.columns, table.shown())
        if len(table.runs) < table.total:
            console.say(f"{len(table.runs)} of {table.total} runs; --all shows all of them, --where and --limit fewer")
    if as_json:
        Console(True).result(table.as_dict())


def _not_both(both: bool, names: str) -> None:
    if both:
        raise typer.BadParameter(f"{names} do not go together; give one of them")
