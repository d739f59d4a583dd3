"""Run: the stages of the pipeline, a run beside it, its record and its report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import PARAMS, Changes, Json, Params, advised, begin, launched, shown

if TYPE_CHECKING:
    from pipelines.console import Console

PAGE = Path("outputs/report.html")  # in the folder of the run


def split(params: Params = PARAMS, changes: Changes = None, as_json: Json = False) -> None:
    """Split the rows into three parts.

    Training, validation and test rows; preprocessing is fitted on the training rows alone.
    """
    _stage("split", params, changes, as_json)


def train(params: Params = PARAMS, changes: Changes = None, as_json: Json = False) -> None:
    """Train on the training rows.

    The validation rows choose the epoch whose weights are kept.
    """
    _stage("train", params, changes, as_json)


def validate(params: Params = PARAMS, changes: Changes = None, as_json: Json = False) -> None:
    """Report on the validation rows.

    Ends with an error, and so holds the pipeline, where a threshold of the spec is missed.
    """
    _stage("validate", params, changes, as_json)


def test(params: Params = PARAMS, changes: Changes = None, as_json: Json = False) -> None:
    """Open the test rows, and report on them.

    Only after validate: all choices are made by then.
    """
    _stage("test", params, changes, as_json)


def run(
    interrupted: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Which to --resume.")] = None,
    params: Params = PARAMS,
    changes: Changes = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run and of its folder.")] = None,
    with_test: Annotated[bool, typer.Option("--test", help="Open the test rows too.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was cut short.")] = False,
    as_json: Json = False,
) -> None:
    """Launch one experiment beside the pipeline.

    The same stages in one process, in a new folder under runs/, as a new run in MLflow.
    """
    from pipelines.api import unfinished
    from pipelines.api.launch import launch
    from pipelines.cli.summary import show
    from pipelines.project import project_of

    if resume and (changes or name or with_test or params != PARAMS):
        raise typer.BadParameter("--resume goes on with a run as it was launched; give its name alone")
    if interrupted and not resume:
        raise typer.BadParameter(f"RUN goes with --resume, got {interrupted} alone; --name names a new run")
    folder = unfinished.choose(project_of(Path()), interrupted) if resume else None
    console, experiment = begin(folder / "params.yaml" if folder else params, changes, as_json)
    if not resume:
        show_unfinished(console)
        for sentence in unfinished.elsewhere(project_of(Path()), experiment.tracking):
            console.say(sentence)
    hidden = "-".join(map(str, experiment.model.hidden)) or "no hidden layer"
    headline = f"{experiment.data.shown_source}, {hidden} {experiment.model.activation}, {experiment.train.backend}"
    with console.reserved(), console.progress("epoch") as progress:
        done = launch(
            experiment, folder, name=name, test=with_test, progress=_epochs(progress, experiment.train.epochs),
            begun=lambda folder: console.say(f"{shown(folder)}: {headline}"), resume=resume,
        )  # fmt: skip
    for warning in done.warnings:
        console.warn(advised(warning, changes))
    show(console, done.reports, done.seconds, done.folder)
    if done.run_id:
        follows = "" if done.complete else ", where figures, report and model follow"
        console.say(f"on record in MLflow as run {done.run_id}{follows}; look at it with: deltarule ui")
    elif not done.complete:
        console.say("it goes on record in the background; `deltarule sync --status` shows how far it is")
    metrics = {stage: report for stage, report in done.reports.items() if stage in ("validate", "test")}
    console.result({"run_id": done.run_id, "folder": shown(done.folder), "metrics": metrics, "seconds": done.seconds})


def show_unfinished(console: Console) -> None:
    """A line each of the runs that can be resumed."""
    from pipelines.api.unfinished import unfinished
    from pipelines.project import project_of

    for folder in unfinished(project_of(Path())):
        go_on = f"deltarule run --resume {folder.name}"
        console.say(f"{shown(folder)} was cut short; remove it, or go on with: {go_on}")


def _stage(name: str, params: Path, changes: list[str] | None, as_json: bool) -> None:
    """Carry out one stage in the workspace, as dvc.yaml does."""
    from pipelines.api.pipeline import run_stage
    from pipelines.cli.summary import show

    console, experiment = begin(params, changes, as_json)
    began = time.perf_counter()
    with console.reserved(), console.progress("epoch") as progress:
        epochs = _epochs(progress, experiment.train.epochs)
        report = run_stage(name, experiment, epochs, lambda warning: console.warn(advised(warning, changes)))
    seconds = {name: round(time.perf_counter() - began, 3)}
    show(console, {name: report}, seconds)
    console.result({"stage": name, "report": report, "seconds": seconds})


def _epochs(progress: Callable[..., None], total: int) -> Callable[[Mapping[str, float]], None]:
    """A function of the record of an epoch."""

    def epoch(record: Mapping[str, float]) -> None:
        losses = "  ".join(f"{name} {record[name]:.4g}" for name in ("train_objective", "val_loss") if name in record)
        progress(int(record["epoch"]), total, losses, of=f"fold {record['fold']:.0f}, " if "fold" in record else "")

    return epoch


def sync(
    params: Params = PARAMS,
    changes: Changes = None,
    status: Annotated[bool, typer.Option("--status", help="Only show what waits; the store is not asked.")] = False,
    drop: Annotated[
        str | None, typer.Option("--drop", metavar="RUN", help="Give up what waits of this run, as --status names it.")
    ] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Also send what was begun for another store, and record anew what is in another place.")
    ] = False,
    receipt: Annotated[
        Path | None, typer.Option("--receipt", metavar="FILE", help="Write the hashes of the outs that are on record.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put on record what waits for the store.

    The pipeline's last run, from its outputs, and whatever the store did not take at its time; what is there already is not
    sent again. Runs of this machine whose process is gone are marked KILLED.
    """
    from pipelines import tracking
    from pipelines.api import pipeline
    from pipelines.console import Console
    from pipelines.project import project_of
    from pipelines.record.sync import write_receipt
    from pipelines.stages import RunPaths

    if status:
        return _show_waiting(Console(as_json))
    if drop is not None:
        dropped = tracking.drop(project_of(Path()), drop)
        Console(as_json).say(f"{dropped.run}: {dropped.waiting} events are given up, and will not be on record")
        return Console(as_json).result(dropped.as_dict())
    console, experiment = begin(params, changes, as_json)
    show_unfinished(console)
    with console.reserved():
        done = pipeline.sync(experiment, here)
    for name, run_id in done.waited.items():
        on_its_way = "another process is sending it; `deltarule sync --status` shows how far it is"
        console.say(f"{name}: {f'on record in MLflow as run {run_id}' if run_id else on_its_way}")
    if done.run_id:
        console.say(f"on record in MLflow as run {done.run_id}")
    elif not experiment.tracking.enabled:
        console.say("tracking is off (tracking.enabled: false)")
    elif not done.waited and done.failure is None:
        console.say("there is nothing to put on record: no run of the pipeline is here, and none waits")
    if done.failure is not None and not done.run_id:
        raise done.failure
    if done.failure is not None:
        console.warn(str(done.failure))
    if receipt is not None:
        write_receipt(RunPaths(Path()), receipt, on_record=done.run_id is not None)
    console.result({"run_id": done.run_id, "launches": done.waited})


def _show_waiting(console: Console) -> None:
    """A table of the runs and studies that wait for the store, or are going on."""
    from pipelines.api.pipeline import waiting
    from pipelines.project import project_of

    def since(milliseconds: float) -> str:
        return datetime.fromtimestamp(milliseconds / 1000).strftime("%Y-%m-%d %H:%M:%S")

    found, studies = waiting(project_of(Path()))
    rows = [
        (one.run, one.state, *map(str, (one.events, one.sent, one.waiting)), since(one.since) if one.waiting else "", one.error)
        for one in found
    ]
    if rows:
        console.table("", ("run", "state", "events", "sent", "waiting", "since", "last error"), rows)
    for study in studies:
        if not study["status"]:
            console.say(f"{study['study']}: not wholly on record")
    if not any(one.waiting for one in found) and not studies:
        console.say("nothing waits for the store")
    console.result({"runs": [one.as_dict() for one in found if not one.is_study], "studies": studies})


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

    One HTML file: what it was and how it ended, metrics, figures, spec, data, how to carry it out again.
    """
    from pipelines.api.results import Run
    from pipelines.console import Console

    folder = launched(folder)
    console, path = Console(as_json), out or folder / PAGE
    if path.is_dir():
        raise typer.BadParameter(f"--out must name a file, got the folder {path}")
    with console.reserved():
        Run(folder).write_report(path)
    console.say(f"written to {path}")
    console.result({"report": str(path)})


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
    from pipelines.spec.identity import SOURCES, source_hash

    console, experiment = begin(params, changes, as_json)
    found = {stage: source_hash(experiment.train.backend, stage) for stage in SOURCES}
    for stage, digest in found.items():
        write_atomically(into / stage, f"{digest}\n".encode())
    console.result({"code": found})
