"""What the commands share: the options that name and change the spec, and the first lines of a command."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from pipelines.console import Console
from pipelines.redact import redact

if TYPE_CHECKING:
    from pipelines.spec import Experiment

Params = Annotated[Path, Option("--params", metavar="FILE", help="The spec of the experiment.")]
Changes = Annotated[
    list[str] | None,
    Option("--set", metavar="A.B=VALUE", help="Override one value of the spec; may be given several times."),
]
Json = Annotated[bool, Option("--json", help="One line of JSON on standard output, all else on standard error.")]
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
    return Console(as_json), experiment_of(params, changes)


def begin_stage(params: Path, changes: list[str] | None, as_json: bool) -> tuple[Console, Experiment]:
    """As `begin`; code.yaml says which code of ours runs now."""
    from pipelines.spec.identity import CODE, renew_code

    console, experiment = begin(params, changes, as_json)
    of_pipeline = params == PARAMS and not changes
    if of_pipeline and renew_code(experiment.train.backend) and "DVC_STAGE" not in os.environ:
        console.say(f"{CODE} was of other code of deltarule; `dvc repro` re-runs what this one may change")
    return console, experiment


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
    options = [f" --set {shlex.quote(redact(one))}" for one in changes or () if one.strip().startswith("tracking.uri")]
    return warning.replace("`deltarule sync`", f"`deltarule sync{''.join(options[-1:])}`")


def page(what: str) -> Any:
    """The option --html, for a page of `what`."""
    return Option("--html", metavar="FILE", help=f"Write a page {what}, too.", dir_okay=False)


def write_page(console: Console, html: Path, text: str) -> None:
    """Write it whole, and say where."""
    from backends.weights import write_atomically

    write_atomically(html, text.encode())
    console.say(f"written to {html}")
