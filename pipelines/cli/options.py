"""What the commands share: the options that name and change the spec, and the first lines of a command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipelines.console import Console
    from pipelines.spec import Experiment

Params = Annotated[Path, typer.Option("--params", metavar="FILE", help="The spec of the experiment.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Override one value of the spec; may be given several times."),
]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON on standard output, all else on standard error.")]
PARAMS = Path("params.yaml")

BAD_INPUT, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 143


def launched(folder: Path) -> Path:
    """A folder of a run; of the newest launch of this name in runs/, where there is no such folder."""
    if folder.exists() or len(folder.parts) != 1:
        return folder
    found = [one for one in sorted(Path("runs").glob("*-*-*")) if one.name.split("-", 2)[2] == folder.name]
    return found[-1] if found else folder


def begin(params: Path, changes: list[str] | None, as_json: bool) -> tuple[Console, Experiment]:
    """Where to say things, and the spec. Raises SpecError."""
    from pipelines.console import Console

    return Console(as_json), experiment_of(params, changes)


def experiment_of(params: Path, changes: list[str] | None) -> Experiment:
    """The spec with its overrides."""
    from pipelines.spec import load

    return load(params, changes or [])


def shown(path: Path) -> str:
    """A path as people would type it here."""
    here = Path().resolve()
    return str(path.resolve().relative_to(here)) if path.resolve().is_relative_to(here) else str(path)


def advised(warning: str, changes: list[str] | None) -> str:
    """A warning about the store, of which the `deltarule sync` that it advises asks the same store as this command."""
    from pipelines.redact import redact

    options = [f" --set {shlex.quote(redact(one))}" for one in changes or () if one.partition("=")[0].strip() == "tracking.uri"]
    return warning.replace("`deltarule sync`", f"`deltarule sync{''.join(options[-1:])}`")


def page(what: str) -> Any:
    """The option --html, for a page of `what`."""
    return typer.Option("--html", metavar="FILE", help=f"Write a page {what}, too.", callback=_no_folder)


def _no_folder(path: Path | None) -> Path | None:
    if path is not None and path.is_dir():
        raise typer.BadParameter(f"--html must name a file, got the folder {path}")
    return path
