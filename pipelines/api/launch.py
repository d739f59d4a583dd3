"""One experiment from its spec to its record, in this process: what `deltarule run` and notebooks share.

Each launch has a folder of its own, with its resolved params.yaml first, so that it can be run again as it is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from shutil import rmtree
from typing import Any

from pipelines import stages, tracking
from pipelines.api.halting import halting
from pipelines.project import project_of
from pipelines.record import Recording
from pipelines.redact import redact
from pipelines.spec import Experiment, dump
from pipelines.stages import HeldError, RunPaths

Progress = Callable[[dict[str, float]], None]  # an epoch's record
RUNS = Path("runs")
BEGUN = {f".deltarule/{name}" for name in ("begun", "begun/tags.json", "begun/uncommitted.diff", "stage.lock")}
UNBEGUN = {"params.yaml", ".deltarule", "outputs", "outputs/data", *BEGUN}  # what there is of a launch before it has its data


@dataclass
class Launch:
    """What a launch did so far."""

    folder: Path
    run_id: str | None = None
    complete: bool = True  # its record; else that goes on in the background
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)  # stage -> what it returned
    seconds: dict[str, float] = field(default_factory=dict)  # stage -> wall time
    warnings: list[str] = field(default_factory=list)


def launch(
    experiment: Experiment,
    folder: Path | None = None,
    *,
    name: str | None = None,
    test: bool = False,
    track: bool = True,
    progress: Progress | None = None,
    begun: Callable[[Launch], None] = lambda launch: None,
) -> Launch:
    """Split, train, validate, with `test` also test, in a new folder; with `track` also into MLflow.

    A relative data.source starts at the project's root. A store that fails is a warning: the outs are kept. Raises
    SpecError, DataError, BackendError and StageError as the stages do (what diverged, or missed a threshold, is put on
    record before), FileExistsError if `folder` exists and is not empty.
    """
    project = project_of(Path())
    called = redact(name or slug(experiment))  # the folder's name is on record too
    done = Launch(new_folder(project / RUNS, called) if folder is None else empty_folder(folder))
    begun(done)
    (done.folder / "params.yaml").write_text(dump(experiment), encoding="utf-8")
    if redact(dump(experiment)) != dump(experiment):  # it can be run again as it is, password and all
        (done.folder / "params.yaml").chmod(0o600)
    if track:
        tracking.keep(done.folder, "deltarule run")
    places = RunPaths(done.folder, base=project, project=project)
    recording = Recording(experiment, places, new_run=True, name=name, on=track)
    try:
        with recorded(recording):
            _carry_out(done, experiment, places, test, progress, recording)
    finally:
        with _timed(done, "record"):
            outcome = recording.close()
        done.run_id, done.complete = outcome.run_id, outcome.complete
        done.warnings += filter(None, [outcome.warning])
        if folder is None:
            _leave_nothing(done.folder)
    return done


def _leave_nothing(folder: Path) -> None:
    """Take a launch's folder away if its data could not be used: then it holds its spec alone, and how it was begun."""
    if {path.relative_to(folder).as_posix() for path in folder.rglob("*")} <= UNBEGUN:
        rmtree(folder)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def _carry_out(
    done: Launch, experiment: Experiment, places: RunPaths, test: bool, progress: Progress | None, recording: Recording
) -> None:
    with _timed(done, "split"):
        done.reports["split"] = stages.split(experiment, places)
    with _timed(done, "train"):
        done.reports["train"] = train_recorded(experiment, places, progress, recording)
    recording.stage()
    with _timed(done, "validate"):
        done.reports["validate"] = stages.validate(experiment, places)
    if test:
        with _timed(done, "test"):
            done.reports["test"] = stages.test(experiment, places)


def train_recorded(experiment: Experiment, places: RunPaths, progress: Progress | None, recording: Recording) -> dict[str, Any]:
    """The stage train, of which the record and `progress` hear each epoch; SIGTERM ends it with a checkpoint."""

    def epoch(record: dict[str, float]) -> None:
        recording.epoch(record)
        if progress is not None:
            progress(record)

    with halting() as halt:
        return stages.train(experiment, places, epoch, begun=recording.start, halt=halt)


@contextmanager
def recorded(recording: Recording) -> Iterator[None]:
    """Ends the record as the run ends: as the outs say, FAILED with an error's message, or KILLED by who told it to end."""
    try:
        yield
    except HeldError:  # its outs are there
        recording.finish()
        raise
    except BaseException as error:
        told = _told_to_end(error)
        if told is None:
            recording.fail(str(error) or type(error).__name__)
        else:
            recording.kill("interrupted by Ctrl-C" if isinstance(told, KeyboardInterrupt) else "ended by SIGTERM")
        raise
    recording.finish()


def _told_to_end(error: BaseException | None) -> BaseException | None:
    """The Ctrl-C or SIGTERM that an error came of."""
    while error is not None and isinstance(error, Exception):
        error = error.__context__
    return error


@contextmanager
def _timed(done: Launch, stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    done.seconds[stage] = round(time.perf_counter() - began, 3)


def slug(experiment: Experiment) -> str:
    """What distinguishes most launches at a glance."""
    return f"{Path(experiment.data.shown_source).stem}-{experiment.train.backend}-{experiment.model.activation}"


def new_folder(parent: Path, name: str) -> Path:
    """A folder that did not exist, named after the time and `name`; two launches at once get two."""
    stem = datetime.now().strftime("%Y%m%d-%H%M%S-") + re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:60]
    parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        folder = parent / f"{stem}{suffix}"
        try:
            folder.mkdir()  # the one step that only one of two processes can win
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{parent}/{stem} and 998 numbered ones exist; remove some, or choose another --name")


def empty_folder(folder: Path) -> Path:
    """`folder`, made if need be; a launch overwrites nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"the folder of a launch must be empty, got {folder}; choose another, or remove what it holds")
    return folder


def shown(path: Path) -> str:
    """A path as people would type it here."""
    here = Path().resolve()
    return str(path.resolve().relative_to(here)) if path.resolve().is_relative_to(here) else str(path)
