"""Prove: a run on record comes out again, and backends train the same experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, BadParameter, Option

from pipelines.cli.options import FAILED, PARAMS, Changes, Json, Params, begin, page
from pipelines.console import Console
from pipelines.project import project_of

if TYPE_CHECKING:
    from pipelines.check.reproduce import Reproduction

WORDS = {
    "bit-equal": "bit-equal: the same to the last bit",
    "within tolerance": "equal within tolerance, not to the bit",
    "different": "different",
}


def reproduce(
    run: Annotated[str, Argument(metavar="RUN", help="Id, the start of it, name, or folder of a launch (runs/...).")],
    into: Annotated[Path | None, Option("--into", metavar="DIR", help="Check out there; must be empty or new.")] = None,
    keep: Annotated[bool, Option("--keep", help="Leave the temporary folder where it is.")] = False,
    with_test: Annotated[bool, Option("--test", help="Open the test rows too, if the run did.")] = False,
    trust: Annotated[bool, Option("--trust", help="Run code that was uncommitted too; it comes from the record.")] = False,
    params: Params = PARAMS,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Run a run on record again, and compare.

    Its commit, uncommitted changes, spec and data, in a separate folder. Exit code 0 if it comes out the same, to the bit or
    within tolerance, 1 if not.
    """
    from pipelines.check.reproduce import reproduce as carry_out

    console, experiment = begin(params, changes, as_json)
    if any(not change.startswith("tracking.") for change in changes or ()):
        raise BadParameter("--set may change tracking alone, where the run is on record; the spec is the run's own")
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
        within = {True: "yes", False: "NO", None: "not judged"}
        rows = [
            (q.quantity, f"{q.difference:.3g}", "" if q.allowed is None else f"{q.allowed:.3g}", q.where, within[q.passed])
            for q in verdict.quantities
        ]
        console.table("", ("quantity", "largest difference", "allowed", "from", "within"), rows)
    for name, then, now in verdict.environment:
        console.say(f"other than then: {name}: {then}, now {now}")
    for note in verdict.notes:
        console.say(f"not known: {note}")
    begins = f"; it begins with {verdict.begins}" if verdict.begins else ""
    console.say(f"{WORDS[verdict.word]}{begins}")
    if done.folder is not None:
        console.say(f"kept in {done.folder}")


def parity(
    params: Params = PARAMS,
    changes: Changes = None,
    names: Annotated[str | None, Option("--backends", metavar="A,B", help="Which; all that are installed.")] = None,
    steps: Annotated[int, Option(min=1, help="Optimizer steps that are compared one by one, and on end.")] = 200,
    precision: Annotated[
        Literal["float32", "float64"] | None, Option(help="Only this one; else float64 and the spec's own.")
    ] = None,
    html: Annotated[Path | None, page("of the report")] = None,
    as_json: Json = False,
) -> None:
    """Prove that backends train the same experiment.

    Compares each with the reference on this spec and its data: one batch, every step, the whole fit. Exit code 1 if one differs.
    """
    from backends.weights import write_atomically
    from pipelines import tracking
    from pipelines.check import parity as proof
    from pipelines.check.show import progress
    from pipelines.check.show import show as show_report

    console, experiment = begin(params, changes, as_json)
    with console.reserved(), progress(console.stream) as on_progress:
        wanted = None if names is None else [name.strip() for name in names.split(",")]
        report = proof.parity(experiment, wanted, steps=steps, precisions=precision and [precision], on_progress=on_progress)
    show_report(console, report)
    if html is not None:
        write_atomically(html, proof.page(report).encode())
    try:
        with console.reserved():
            run_id = proof.attach_to_run(experiment, report)
    except tracking.TrackingError as error:
        console.warn(str(error))
        run_id = None
    if run_id is not None:
        console.say(f"attached to run {run_id} in MLflow")
    console.result({"run_id": run_id, **report.as_dict()})
    if not report.passed:
        raise typer.Exit(FAILED)
