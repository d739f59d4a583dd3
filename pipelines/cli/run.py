"""Run: the stages of the pipeline, a run beside it, its record and its report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import PARAMS, Changes, Json, Params, begin, launched

if TYPE_CHECKING:
    from pipelines.console import Console, Progress
    from pipelines.spec import Experiment

PAGE = Path("outputs/report.html")  # in the folder of the run: git ignores it, and no stage takes it for an out of its own


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
    params: Params = PARAMS,
    changes: Changes = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run and of its folder.")] = None,
    with_test: Annotated[bool, typer.Option("--test", help="Open the test rows too.")] = False,
    as_json: Json = False,
) -> None:
    """Launch one experiment beside the pipeline.

    The same stages in one process, in a new folder under runs/, as a new run in MLflow.
    """
    from pipelines.api.launch import Launch, launch, shown
    from pipelines.cli.summary import show
    from pipelines.console import Progress

    console, experiment = begin(params, changes, as_json)
    folder = ""

    def begun(launched: Launch) -> None:
        nonlocal folder
        folder = shown(launched.folder)
        console.say(f"{folder}: {_headline(experiment)}")

    def closing() -> None:
        console.say("putting it on record: figures, report, model ...")

    with console.reserved(), Progress(console, "epoch") as progress:
        epoch = _shown_in(progress, experiment.train.epochs)
        done = launch(experiment, name=name, test=with_test, progress=epoch, begun=begun, closing=closing)
    for warning in done.warnings:
        console.warn(warning)
    show(console, done.reports, done.seconds)
    if done.run_id:
        console.say(f"on record in MLflow as run {done.run_id}; look at it with: deltarule ui")
    metrics = {stage: report for stage, report in done.reports.items() if stage in ("validate", "test")}
    console.result({"run_id": done.run_id, "folder": folder, "metrics": metrics, "seconds": done.seconds})


def _stage(name: str, params: Path, changes: list[str] | None, as_json: bool) -> None:
    """Carry out one stage in the workspace, as dvc.yaml does."""
    from pipelines import stages
    from pipelines.api.launch import train_in_place
    from pipelines.cli.summary import show
    from pipelines.console import Progress

    console, experiment = begin(params, changes, as_json)
    began = time.perf_counter()
    with console.reserved(), Progress(console, "epoch") as progress:
        if name == "train":
            epoch = _shown_in(progress, experiment.train.epochs)
            report = train_in_place(experiment, stages.RunPaths(Path()), epoch, console.warn)
        else:
            report = _other_stage(name, console, experiment)
    seconds = {name: round(time.perf_counter() - began, 3)}
    show(console, {name: report}, seconds)
    console.result({"stage": name, "report": report, "seconds": seconds})


def _other_stage(name: str, console: Console, experiment: Experiment) -> dict[str, Any]:
    from pipelines import stages, tracking
    from pipelines.record.sync import sync

    places = stages.RunPaths(Path())
    try:
        return dict(getattr(stages, name)(experiment, places))
    except stages.HeldError:  # the pipeline ends here, and will not come to its own `record`
        try:
            sync(places, experiment)
        except tracking.TrackingError as error:
            console.warn(str(error))
        raise


def _shown_in(progress: Progress, total: int) -> Callable[[Mapping[str, float]], None]:
    """A function of the record of an epoch."""

    def epoch(record: Mapping[str, float]) -> None:
        losses = "  ".join(f"{name} {record[name]:.4g}" for name in ("train_objective", "val_loss") if name in record)
        progress.show(int(record["epoch"]), total, losses, of=f"fold {record['fold']:.0f}, " if "fold" in record else "")

    return epoch


def _headline(experiment: Experiment) -> str:
    hidden = "-".join(map(str, experiment.model.hidden)) or "no hidden layer"
    return f"{experiment.data.shown_source}, {hidden} {experiment.model.activation}, {experiment.train.backend}"


def sync(
    params: Params = PARAMS,
    changes: Changes = None,
    status: Annotated[bool, typer.Option("--status", help="Only show what waits; the store is not asked.")] = False,
    drop: Annotated[
        str | None, typer.Option("--drop", metavar="RUN", help="Give up what waits of this run, as --status names it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put on record what waits for the store.

    The pipeline's last run, from its outputs, and whatever the store did not take at its time; what is there already is not
    sent again. Runs of this machine whose process is gone are marked KILLED.
    """
    from pipelines import stages, tracking
    from pipelines.api.launch import send_waiting, show_waiting
    from pipelines.console import Console
    from pipelines.project import project_of
    from pipelines.record.sync import sync as put_on_record

    project, places = project_of(Path()), stages.RunPaths(Path())
    if status:
        return show_waiting(Console(as_json), project)
    if drop is not None:
        dropped = tracking.drop(project, drop)
        Console(as_json).say(f"{dropped.run}: {dropped.waiting} events are given up, and will not be on record")
        return Console(as_json).result(dropped.as_dict())
    console, experiment = begin(params, changes, as_json)
    with console.reserved():
        tracking.mark_killed(project)
        trained = places.run.exists()
        run_id = put_on_record(places, experiment) if trained else None
        sent, failure = dict[str, str | None](), None
        try:
            for folder, launched in send_waiting(project, experiment.tracking):
                sent[folder] = launched
        except tracking.TrackingError as error:
            failure = error
        if not trained and not sent and failure is None:
            put_on_record(places, experiment)  # says what is missing
    for folder, launched in sent.items():
        console.say(f"{folder}: on record in MLflow as run {launched}")
    if run_id or not experiment.tracking.enabled:
        console.say(f"on record in MLflow as run {run_id}" if run_id else "tracking is off (tracking.enabled: false)")
    if failure is not None and not run_id:
        raise failure
    if failure is not None:  # of an earlier run: no reason to hold the pipeline
        console.warn(str(failure))
    console.result({"run_id": run_id, "launches": sent})


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
