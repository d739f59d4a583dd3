"""The command `report`: a run as one page. A command parses, calls and prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Json, launched

if TYPE_CHECKING:
    from pipelines.spec import Experiment

PAGE = Path("outputs/report.html")  # in the folder of the run: git ignores it, and no stage takes it for an out of its own


def add_to(app: typer.Typer) -> None:
    """Put the command among the others."""
    app.command()(report)


def report(
    folder: Annotated[
        Path,
        typer.Argument(metavar="RUN_FOLDER", help="Of a launch, runs/... or its name; the pipeline's, if left out."),
    ] = Path("."),
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The page; RUN_FOLDER/outputs/report.html if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a run.

    One HTML file: what it was and how it ended, metrics with their intervals, figures, spec, data, how to carry it out again.
    """
    from pipelines.console import Console

    folder = launched(folder)
    console, path = Console(as_json), out or folder / PAGE
    if path.is_dir():
        raise typer.BadParameter(f"--out must name a file, got the folder {path}")
    with console.reserved():
        write(folder, path)
    console.say(f"written to {path}")
    console.result({"report": str(path)})


def write(folder: Path, path: Path) -> None:
    """The page of the run in `folder`, whole or not at all. Raises StageError if nothing was trained there."""
    from backends.weights import write_atomically
    from pipelines.report import figures, run_page
    from pipelines.stages import RunPaths, StageError

    places = RunPaths(folder)
    if not folder.is_dir():
        raise StageError(
            f"RUN_FOLDER must be the folder of a run, such as runs/..., or . for the pipeline's; found none at {folder}", 2
        )
    for needed, command in ((places.about, "split"), (places.run, "train")):
        places.need(needed, command)
    write_atomically(path, run_page(folder, figures(folder), _spec_of(folder)).encode())


def _spec_of(folder: Path) -> Experiment | None:
    """The spec beside the outs, for what they do not hold of it; a report does without one that is missing or wrong by now."""
    from pipelines.spec import SpecError, load

    try:
        return load(folder / "params.yaml")
    except (SpecError, OSError):
        return None
