"""The command `deltarule`. A command parses, calls and prints; the work lives in stages, launch, tracking and probe.

Nothing heavier than Typer is imported before a command runs, so that --help is instant and an error in the spec is told
before any framework loads.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from pipelines.cli import compare, data, project, register, report, reproduce, search
from pipelines.cli.options import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    PARAMS,
    TERMINATED,
    Changes,
    Json,
    Params,
    begin,
    experiment_of,
)

if TYPE_CHECKING:
    from pipelines.console import Console
    from pipelines.spec import Experiment

app = typer.Typer(
    help="One experiment spec, any framework, the same experiment.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing Rich would double the time of --help
)

# Module, class, exit code (unless the error carries its own): errors whose text is all that people need.
OUR_ERRORS = (
    ("pipelines.spec", "SpecError", BAD_INPUT),
    ("backends", "BackendError", BAD_INPUT),
    ("pipelines.data", "DataError", BAD_INPUT),
    ("pipelines.stages", "StageError", FAILED),
    ("pipelines.new", "ProjectError", BAD_INPUT),
    ("pipelines.search.book", "StudyError", BAD_INPUT),
    ("pipelines.tracking", "TrackingError", FAILED),
    ("pipelines.compare.keys", "QueryError", BAD_INPUT),
    ("pipelines.executors", "ExecutorError", FAILED),
    ("pipelines.search.storage", "StorageError", BAD_INPUT),
    ("pipelines.check.recorded", "ReproduceError", BAD_INPUT),
)


class Terminated(BaseException):
    """SIGTERM came. Not an Exception: nothing on the way out may take it for a failure of its own."""


@app.callback()
def common(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """One experiment spec, any framework, the same experiment."""


@app.command()
def split(params: Params = PARAMS, changes: Changes = None, as_json: Json = False) -> None:
    """Split the rows into three parts.

    Training, validation and test rows; preprocessing is fitted on the training rows alone.
    """
    _stage("split", params, changes, as_json)


@app.command()
def train(params: Params = PARAMS, changes: Changes = None, as_json: Json = False) -> None:
    """Train on the training rows.

    The validation rows choose the epoch whose weights are kept.
    """
    _stage("train", params, changes, as_json)


@app.command()
def validate(params: Params = PARAMS, changes: Changes = None, as_json: Json = False) -> None:
    """Report on the validation rows.

    Ends with an error, and so holds the pipeline, where a threshold of the spec is missed.
    """
    _stage("validate", params, changes, as_json)


@app.command()
def test(params: Params = PARAMS, changes: Changes = None, as_json: Json = False) -> None:
    """Open the test rows, and report on them.

    Only after validate: all choices are made by then.
    """
    _stage("test", params, changes, as_json)


search.add_to(app)
data.add_to(app)
project.add_to(app)
register.add_to(app)
report.add_to(app)
compare.add_to(app)
reproduce.add_to(app)


@app.command()
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

    project, places = project_of(Path()), stages.RunPaths(Path())
    if status:
        return show_waiting(Console(as_json), project)
    if drop is not None:
        dropped = tracking.drop(project, drop)
        Console(as_json).say(f"{dropped.run}: {dropped.waiting} events are given up, and will not be on record")
        return Console(as_json).result(dropped.as_dict())
    console, experiment = begin(params, changes, as_json)
    with console.reserved():
        tracking.bury(project)
        trained = places.run.exists()
        run_id = tracking.sync(places, experiment) if trained else None
        sent, failure = dict[str, str | None](), None
        try:
            for folder, launched in send_waiting(project, experiment.tracking):
                sent[folder] = launched
        except tracking.TrackingError as error:
            failure = error
        if not trained and not sent and failure is None:
            tracking.sync(places, experiment)  # says what is missing
    for folder, launched in sent.items():
        console.say(f"{folder}: on record in MLflow as run {launched}")
    if run_id or not experiment.tracking.enabled:
        console.say(f"on record in MLflow as run {run_id}" if run_id else "tracking is off (tracking.enabled: false)")
    if failure is not None and not run_id:
        raise failure
    if failure is not None:  # of an earlier run: no reason to hold the pipeline
        console.warn(str(failure))
    console.result({"run_id": run_id, "launches": sent})


@app.command()
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
    from pipelines.console import Epochs

    console, experiment = begin(params, changes, as_json)
    folder = ""

    def begun(launched: Launch) -> None:
        nonlocal folder
        folder = shown(launched.folder)
        console.say(f"{folder}: {_headline(experiment)}")

    def closing() -> None:
        console.say("putting it on record: figures, report, model ...")

    with console.reserved(), Epochs(console, experiment.train.epochs) as progress:
        done = launch(experiment, name=name, test=with_test, progress=progress, begun=begun, closing=closing)
    for warning in done.warnings:
        console.warn(warning)
    show(console, done.reports, done.seconds)
    if done.run_id:
        console.say(f"on record in MLflow as run {done.run_id}; look at it with: deltarule ui")
    metrics = {stage: report for stage, report in done.reports.items() if stage in ("validate", "test")}
    console.result({"run_id": done.run_id, "folder": folder, "metrics": metrics, "seconds": done.seconds})


@app.command()
def parity(
    params: Params = PARAMS,
    changes: Changes = None,
    names: Annotated[str | None, typer.Option("--backends", metavar="A,B", help="Which; all that are installed.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps that are compared one by one, and on end.")] = 200,
    precision: Annotated[
        Literal["float32", "float64"] | None, typer.Option(help="Only this one; else float64 and the spec's own.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the report as a page, too.")] = None,
    as_json: Json = False,
) -> None:
    """Prove that backends train the same experiment.

    Compares each with the reference on this spec and its data: one batch, every step, the whole fit. Exit code 1 if one differs.
    """
    from pipelines import tracking
    from pipelines.check.parity import attach_to_run, page
    from pipelines.check.parity import parity as compare
    from pipelines.check.show import Bars, show

    console, experiment = begin(params, changes, as_json)
    if html is not None and html.is_dir():
        raise typer.BadParameter(f"--html must name a file, got the folder {html}")
    with console.reserved(), Bars(console.stream) as progress:
        wanted = None if names is None else [name.strip() for name in names.split(",")]
        report = compare(experiment, wanted, steps=steps, precisions=precision and [precision], on_progress=progress)
    show(console, report)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(page(report), encoding="utf-8")
    try:
        with console.reserved():
            run_id = attach_to_run(experiment, report)
    except tracking.TrackingError as error:
        console.warn(str(error))
        run_id = None
    if run_id is not None:
        console.say(f"attached to run {run_id} in MLflow")
    console.result({"run_id": run_id, **report.as_dict()})
    if not report.passed:
        raise typer.Exit(FAILED)


@app.command()
def ui(
    params: Params = PARAMS,
    changes: Changes = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open MLflow on the project's store.

    On this machine only (127.0.0.1), until Ctrl-C.
    """
    from pipelines import tracking
    from pipelines.project import project_of

    tracking.ui(experiment_of(params, changes), project_of(Path()), port)


@app.command()
def backends(as_json: Json = False) -> None:
    """List the backends.

    Installed or not, versions, devices, and what to install for the rest.
    """
    from pipelines.cli.probe import look_at_all
    from pipelines.console import Console

    console, found = Console(as_json), look_at_all()
    rows = [
        (b.name, "yes" if b.installed else "no", ", ".join(b.devices), ", ".join(f"{k} {v}" for k, v in b.versions.items()))
        for b in found
    ]
    console.table("backends", ("name", "installed", "devices", "versions"), rows)
    for backend in found:
        if not backend.installed:
            console.say(f"{backend.name}: {backend.message}")
    console.result({"backends": [backend.as_dict() for backend in found]})


@app.command()
def schema() -> None:
    """Print the JSON Schema of the spec."""
    import json

    from pipelines.spec.documents import schema as of_the_spec

    typer.echo(json.dumps(of_the_spec(), indent=2, ensure_ascii=False))


@app.command()
def spec(params: Params = PARAMS, changes: Changes = None) -> None:
    """Print the resolved spec.

    Every value, overrides and defaults included.
    """
    from pipelines.spec import dump

    typer.echo(dump(experiment_of(params, changes)), nl=False)


def _stage(name: str, params: Path, changes: list[str] | None, as_json: bool) -> None:
    """Carry out one stage in the workspace, as dvc.yaml does."""
    from pipelines import stages
    from pipelines.api.launch import train_in_place
    from pipelines.cli.summary import show
    from pipelines.console import Epochs

    console, experiment = begin(params, changes, as_json)
    began = time.perf_counter()
    with console.reserved(), Epochs(console, experiment.train.epochs) as progress:
        if name == "train":
            report = train_in_place(experiment, stages.RunPaths(Path()), progress, console.warn)
        else:
            report = _other_stage(name, console, experiment)
    seconds = {name: round(time.perf_counter() - began, 3)}
    show(console, {name: report}, seconds)
    console.result({"stage": name, "report": report, "seconds": seconds})


def _other_stage(name: str, console: Console, experiment: Experiment) -> dict[str, Any]:
    from pipelines import stages, tracking

    places = stages.RunPaths(Path())
    try:
        return dict(getattr(stages, name)(experiment, places))
    except stages.HeldError:  # the pipeline ends here, and will not come to its own `record`
        try:
            tracking.sync(places, experiment)
        except tracking.TrackingError as error:
            console.warn(str(error))
        raise


def _headline(experiment: Experiment) -> str:
    hidden = "-".join(map(str, experiment.model.hidden)) or "no hidden layer"
    return f"{experiment.data.shown_source}, {hidden} {experiment.model.activation}, {experiment.train.backend}"


# -- errors and the end -----------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and leave with its exit code: 0, 1 failed, 2 bad input, 130 Ctrl-C, 143 SIGTERM, or the stage's own."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app([a for a in arguments if a != "--debug"] or ["--help"], prog_name="deltarule", standalone_mode=False) or 0
    except (Exception, KeyboardInterrupt, Terminated) as error:
        if debug:
            traceback.print_exc()
        code, message = _judge(error)
        print(message, file=sys.stderr)
    else:
        if code == INTERRUPTED:
            print("interrupted", file=sys.stderr)
    sys.exit(code)


def _terminate(*_: object) -> NoReturn:
    raise Terminated


def _judge(error: BaseException) -> tuple[int, str]:
    """Exit code and the one message of an error."""
    error = _interruption(error) or error
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, Terminated):
        return TERMINATED, "terminated"
    if isinstance(error, typer.TyperException):
        return BAD_INPUT, f"{error.format_message()} (deltarule --help)"
    return _of_ours(error) or _of_the_system(error) or (FAILED, f"failed, which should not happen: {_told(error)}")


def _interruption(error: BaseException | None) -> BaseException | None:
    """The Ctrl-C or SIGTERM that this error came of: what fails on the way out of one is no failure of its own."""
    while error is not None and not isinstance(error, KeyboardInterrupt | Terminated):
        error = error.__context__
    return error


def _of_ours(error: BaseException) -> tuple[int, str] | None:
    """Errors that say themselves what must hold. Their modules are loaded already if they were raised."""
    for module, name, code in OUR_ERRORS:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return getattr(error, "exit_code", code), str(error)
    return None


def _of_the_system(error: BaseException) -> tuple[int, str] | None:
    """Files that are missing, unreadable, full disks: `strerror` and the path."""
    if isinstance(error, OSError):
        told = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else _told(error)
        return BAD_INPUT if isinstance(error, FileNotFoundError | FileExistsError) else FAILED, told
    return None


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error} (the traceback: deltarule --debug ...)"
