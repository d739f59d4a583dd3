"""Run: the stages of the pipeline, a run beside it, its record and its report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, BadParameter, Option

from pipelines.cli.options import PARAMS, Changes, Json, Params, advised, begin, begin_stage, launched, shown
from pipelines.console import Console, number
from pipelines.project import project_of

PAGE = Path("outputs/report.html")  # in the folder of the run
Report = Mapping[str, Any]
WORDS = {"train": "training", "valid": "validation", "test": "test"}
# Beside those of simple models.
CHIEF = ("loss", "accuracy", "balanced_accuracy", "f1", "rmse", "r2")
PARTS = {"validate": "validation", "test": "test"}


def stage(name: str, *about: str) -> Callable[..., None]:
    """The command that carries out one stage in the workspace, as dvc.yaml does."""

    def carry_out(params: Params = PARAMS, changes: Changes = None, as_json: Json = False) -> None:
        from pipelines.api.pipeline import run_stage

        console, experiment = begin_stage(params, changes, as_json)
        began = time.perf_counter()
        with console.reserved(), console.progress("epoch") as progress:
            epochs = _epochs(progress, experiment.train.epochs)
            report = run_stage(name, experiment, epochs, lambda warning: console.warn(advised(warning, changes)))
        seconds = {name: round(time.perf_counter() - began, 3)}
        show(console, {name: report}, seconds)
        console.result({"stage": name, "report": report, "seconds": seconds})

    carry_out.__name__, carry_out.__doc__ = name, "\n\n".join(about)
    return carry_out


STAGES = (
    stage(
        "split",
        "Split the rows into three parts.",
        "Training, validation and test rows; preprocessing is fitted on the training rows alone.",
    ),
    stage("train", "Train on the training rows.", "The validation rows choose the epoch whose weights are kept."),
    stage(
        "validate",
        "Report on the validation rows.",
        "Ends with an error, and so holds the pipeline, where a threshold of the spec is missed.",
    ),
    stage("test", "Open the test rows, and report on them.", "Only after validate: all choices are made by then."),
)


def run(
    interrupted: Annotated[str | None, Argument(metavar="[RUN]", help="Which to --resume.")] = None,
    params: Params = PARAMS,
    changes: Changes = None,
    name: Annotated[str | None, Option("--name", help="Name of the run and of its folder.")] = None,
    with_test: Annotated[bool, Option("--test", help="Open the test rows too.")] = False,
    resume: Annotated[bool, Option("--resume", help="Go on with a run that was cut short.")] = False,
    as_json: Json = False,
) -> None:
    """Launch one experiment beside the pipeline.

    The same stages in one process, in a new folder under runs/, as a new run in MLflow.
    """
    from pipelines.api.launch import choose, launch
    from pipelines.api.pipeline import elsewhere

    if resume and (changes or name or with_test or params != PARAMS):
        raise BadParameter("--resume goes on with a run as it was launched; give its name alone")
    if interrupted and not resume:
        raise BadParameter(f"RUN goes with --resume, got {interrupted} alone; --name names a new run")
    folder = choose(project_of(Path()), interrupted) if resume else None
    console, experiment = begin(folder / "params.yaml" if folder else params, changes, as_json)
    if not resume:
        show_unfinished(console)
        for sentence in elsewhere(project_of(Path()), experiment.tracking):
            console.say(sentence)
    hidden = "-".join(map(str, experiment.model.hidden)) or "no hidden layer"
    headline = f"{experiment.data.shown_source}, {hidden} {experiment.model.activation}, {experiment.train.backend}"
    with console.reserved(), console.progress("epoch") as progress:
        done = launch(
            experiment,
            folder,
            name=name,
            test=with_test,
            progress=_epochs(progress, experiment.train.epochs),
            begun=lambda folder: console.say(f"{shown(folder)}: {headline}"),
            resume=resume,
        )
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
    from pipelines.api.launch import unfinished

    for folder in unfinished(project_of(Path())):
        go_on = f"deltarule run --resume {folder.name}"
        console.say(f"{shown(folder)} was cut short; remove it, or go on with: {go_on}")


def _epochs(progress: Callable[..., None], total: int) -> Callable[[Mapping[str, float]], None]:
    """A function of the record of an epoch."""

    def epoch(record: Mapping[str, float]) -> None:
        losses = "  ".join(f"{name} {record[name]:.4g}" for name in ("train_objective", "val_loss") if name in record)
        progress(int(record["epoch"]), total, losses, of=f"fold {record['fold']:.0f}, " if "fold" in record else "")

    return epoch


def sync(
    params: Params = PARAMS,
    changes: Changes = None,
    status: Annotated[bool, Option("--status", help="Only show what waits; the store is not asked.")] = False,
    drop: Annotated[
        str | None, Option("--drop", metavar="RUN", help="Give up what waits of this run, as --status names it.")
    ] = None,
    here: Annotated[
        bool, Option("--here", help="Also send what was begun for another store, and record anew what is in another place.")
    ] = False,
    receipt: Annotated[
        Path | None, Option("--receipt", metavar="FILE", help="Write the hashes of the outs that are on record.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put on record what waits for the store.

    The pipeline's last run, from its outputs, and whatever the store did not take at its time; what is there already is not
    sent again. Runs of this machine whose process is gone are marked KILLED.
    """
    from pipelines import tracking
    from pipelines.api import pipeline
    from pipelines.record.sync import write_receipt
    from pipelines.stages import RunPaths

    if status:
        return _show_waiting(Console(as_json))
    if drop is not None:
        dropped = tracking.drop(project_of(Path()), drop)
        Console(as_json).say(f"{dropped.run}: {dropped.waiting} events are given up, and will not be on record")
        return Console(as_json).result(dropped.as_dict())
    console, experiment = begin_stage(params, changes, as_json)
    show_unfinished(console)
    with console.reserved():
        done = pipeline.sync(experiment, here)
    for name, run_id in done.waited.items():
        on_its_way = "another process is sending it; `deltarule sync --status` shows how far it is"
        console.say(f"{name}: {f'on record in MLflow as run {run_id}' if run_id else on_its_way}")
    for name, maker in done.makers.items():
        console.say(f"{name} was made by {maker}, not by you")
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
        Argument(metavar="RUN_FOLDER", help="Of a launch, runs/... or its name; the pipeline's, if left out."),
    ] = Path("."),
    out: Annotated[
        Path | None, Option(metavar="FILE", help="The page; RUN_FOLDER/outputs/report.html if left out.", dir_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a run.

    One HTML file: what it was and how it ended, metrics, figures, spec, data, how to carry it out again.
    """
    from pipelines.api.results import Run

    folder = launched(folder)
    console, path = Console(as_json), out or folder / PAGE
    with console.reserved():
        Run(folder).write_report(path)
    console.say(f"written to {path}")
    console.result({"report": str(path)})


def code(
    params: Params = PARAMS,
    changes: Changes = None,
    into: Annotated[Path, Option("--into", metavar="DIR", help="Where older projects have them.")] = Path("outputs/code"),
    as_json: Json = False,
) -> None:
    """Write hashes of deltarule's code into code.yaml, on which a project's pipeline depends."""
    from backends.weights import write_atomically
    from pipelines.spec.identity import CODE, source_hashes

    console, experiment = begin_stage(params, changes, as_json)
    found = source_hashes(experiment.train.backend)
    if not CODE.is_file():  # earlier projects have a file a stage
        for stage, digest in found.items():
            write_atomically(into / stage, f"{digest}\n".encode())
    console.result({"code": found})


# -- what stages returned, in words and tables --


def show(console: Console, reports: Mapping[str, Report], seconds: Mapping[str, float], folder: Path = Path()) -> None:
    """A few lines for split and one for train, tables for validate and test, of a run in `folder`, and the seconds."""
    if "split" in reports:
        for line in data_lines(reports["split"]):
            console.say(line)
    if "train" in reports:
        console.say(_training(reports["train"]))
    judged = [stage for stage in PARTS if stage in reports]
    if judged:
        folds = any(name.endswith("_sd") for name in reports[judged[0]])
        told = {"test": " (95 % interval)"} if not folds else dict.fromkeys(PARTS, " (mean ± sd of folds)")
        columns = ["metric", *(PARTS[stage] + told.get(stage, "") for stage in judged)]
        console.table("", columns, [[name, *(_value(reports[s], name) for s in judged)] for name in _names(reports[judged[-1]])])
    from pipelines.report.outs import Outs

    for stage in judged[-1:]:
        _beside(console, Outs(folder).beside(stage), reports[stage], stage)
    if "openings" in reports.get("test", {}):
        console.say(f"experiments that have opened these test rows so far: {reports['test']['openings']}")
    console.say("seconds: " + ", ".join(f"{stage} {spent:.1f}" for stage, spent in seconds.items()))


def _beside(console: Console, told: Report, report: Report, stage: str) -> None:
    """The network and the baselines, a line each; and what is wrong with the network."""
    names = [name for name in CHIEF if name in report]
    models = {"the network": report, **told["baselines"]} if told.get("baselines") else {}
    if models:
        lines = [[name, *(number(one.get(metric, "")) for metric in names)] for name, one in models.items()]
        console.table("", [f"on the {PARTS[stage]} rows", *names], lines)
    for sentence in told.get("notes", ()):
        console.say(sentence)
    for sentence in told.get("warnings", ()):
        console.warn(sentence)


def data_lines(report: Report) -> Iterator[str]:
    """What the rows are, and, where there is any, what is not as one would wish."""
    rows = ", ".join(f"{report[f'rows_{part}']} {word}" for part, word in WORDS.items())
    if report["folds"]:
        rows = f"{report['rows_train']} in {report['folds']} folds, {report['rows_test']} test"
    yield f"{report['source']}: {report['task']}, {report['inputs']} inputs, {report['outputs']} outputs; rows: {rows}"
    if report["rows_left_out"]:
        yield f"rows left out: {told_of(report['rows_left_out'])}"
    if set(report["kinds"]) != {"numeric"}:
        yield f"columns: {', '.join(f'{count} {kind}' for kind, count in report['kinds'].items())}"
    if report["left_out"]:
        yield f"no inputs: {_first([f'{name} ({why})' if why else name for name, why in report['left_out'].items()])}"
    if report["missing"]:
        yield f"missing values: {_first([f'{name} {count}' for name, count in report['missing'].items()])}"
    if report["rare"]:
        told = [f"{name} {count} in {rows} training rows" for name, (count, rows) in report["rare"].items()]
        yield f"rare categories, which share an input (data.categories): {_first(told)}"
    for part, columns in report["unseen"].items():
        if columns:
            yield f"{WORDS[part]} rows with a value that no training row has: " + _first([f"{n} {c}" for n, c in columns.items()])
    if report["duplicates"]["rows"]:
        across = report["duplicates"]["across"]
        where = f"{across} of such rows have an equal in another part" if across else "equal ones are in one part"
        yield f"duplicates: {report['duplicates']['rows']} rows equal an earlier one in every column; {where}"


def told_of(left_out: Mapping[str, int]) -> str:
    """Why rows are left out, and how many."""
    return ", ".join(f"{rows:,} {why}" for why, rows in left_out.items())


def _first(words: Sequence[str]) -> str:
    """The first ten of many."""
    return ", ".join(words[:10]) + (f" and {len(words) - 10} more" if len(words) > 10 else "")


def _training(report: Report) -> str:
    best, chosen = (
        ", ".join(f"{n.removeprefix('best_')} {_value(report, n)}" for n in _names(report) if n.startswith(start))
        for start in ("best_train", "best_val")
    )
    epoch = _value(report, "best_epoch") if "best_epoch_sd" in report else report.get("best_epoch", "-")
    return f"best epoch {epoch} of {report['epochs']}: {best}; {chosen}"


def _names(report: Report) -> list[str]:
    """Metrics, without the ends of their intervals and their sds over folds."""
    ends = ("_low", "_high", "_sd")
    return [n for n in report if n != "openings" and not (n.endswith(ends) and n.rpartition("_")[0] in report)]


def _value(report: Report, name: str) -> str:
    if name not in report:
        return ""
    spread = f" ± {number(report[f'{name}_sd'])}" if f"{name}_sd" in report else ""
    return number(report[name], report.get(f"{name}_low"), report.get(f"{name}_high")) + spread
