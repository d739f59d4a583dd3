"""The command `reproduce`: a run on record, run again. A command parses, calls and prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import FAILED, PARAMS, Changes, Json, Params, begin

if TYPE_CHECKING:
    from pipelines.check.reproduce import Reproduction
    from pipelines.console import Console

WORDS = {
    "bit-equal": "bit-equal: the same to the last bit",
    "within tolerance": "equal within tolerance, not to the bit",
    "different": "different",
}


def add_to(app: typer.Typer) -> None:
    """Put the command among the others."""
    app.command()(reproduce)


def reproduce(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id, the start of it, name, or folder of a launch (runs/...).")],
    into: Annotated[Path | None, typer.Option("--into", metavar="DIR", help="Check out there; must be empty or new.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the temporary folder where it is.")] = False,
    with_test: Annotated[bool, typer.Option("--test", help="Open the test rows too, if the run did.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Run code that was uncommitted too; it comes from the record.")] = False,
    params: Params = PARAMS,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Run a run on record again, and compare.

    Its commit, uncommitted changes, spec and data, in a separate folder. Exit code 0 if it comes out the same, to the bit or
    within tolerance, 1 if not.
    """
    from pipelines.check.reproduce import reproduce as carry_out
    from pipelines.project import project_of

    console, experiment = begin(params, changes, as_json)
    if any(not change.startswith("tracking.") for change in changes or ()):
        raise typer.BadParameter("--set may change tracking alone, where the run is on record; the spec is the run's own")
    with console.reserved():
        project = project_of(Path())
        done = carry_out(run, experiment, project, into=into, keep=keep, test=with_test, trust=trust, say=console.say)
    show(console, done)
    console.result(done.as_dict())
    if not done.verdict.reproduced:
        raise typer.Exit(FAILED)


def show(console: Console, done: Reproduction) -> None:
    """What differs, if anything; then the verdict."""
    verdict = done.verdict
    if verdict.word != "bit-equal":
        rows = [
            (one.quantity, f"{one.difference:.3g}", "" if one.allowed is None else f"{one.allowed:.3g}", one.where,
             {True: "yes", False: "NO", None: "not judged"}[one.passed])
            for one in verdict.quantities
        ]  # fmt: skip
        console.table("", ("quantity", "largest difference", "allowed", "from", "within"), rows)
    for name, then, now in verdict.environment:
        console.say(f"other than then: {name}: {then}, now {now}")
    for note in verdict.notes:
        console.say(f"not known: {note}")
    begins = f"; it begins with {verdict.begins}" if verdict.begins else ""
    console.say(f"{WORDS[verdict.word]}{begins}")
    if done.folder is not None:
        console.say(f"kept in {done.folder}")
