"""One experiment from its spec to its record, in this process: what `deltarule run` and notebooks share.

Each launch has a folder of its own, with its resolved params.yaml first, so that it can be run again as it is.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from shutil import rmtree
from typing import Any

from pipelines import stages, tracking
from pipelines.api.results import Run
from pipelines.project import project_of
from pipelines.record import Recording
from pipelines.redact import redact
from pipelines.spec import Experiment, dump
from pipelines.stages import HeldError, RunPaths

Progress = Callable[[dict[str, float]], None]  # an epoch's record
RUNS = Path("runs")
BEGUN = {f".deltarule/{name}" for name in ("begun", "begun/tags.json", "begun/uncommitted.diff", "stage.lock")}
UNBEGUN = {"params.yaml", ".deltarule", "outputs", "outputs/data", *BEGUN}  # what there is of a launch before it has its data
GRACE_SECONDS = 5.0  # for the chunk of steps that is being trained; who sends SIGTERM often kills after ten


def launch(
    experiment: Experiment,
    folder: Path | None = None,
    *,
    name: str | None = None,
    test: bool = False,
    track: bool = True,
    progress: Progress | None = None,
    begun: Callable[[Path], None] = lambda folder: None,
) -> Run:
    """Split, train, validate, with `test` also test, in a new folder; with `track` also into MLflow.

    A relative data.source starts at the project's root. A store that fails is a warning: the outs are kept. Raises
    SpecError, DataError, BackendError and StageError as the stages do (what diverged, or missed a threshold, is put on
    record before), FileExistsError if `folder` exists and is not empty.
    """
    project = project_of(Path())
    called = redact(name or f"{Path(experiment.data.shown_source).stem}-{experiment.train.backend}-{experiment.model.activation}")
    place = new_folder(project / RUNS, called) if folder is None else empty_folder(folder)  # its name is on record too
    begun(place)
    (place / "params.yaml").write_text(dump(experiment), encoding="utf-8")
    if redact(dump(experiment)) != dump(experiment):  # it can be run again as it is, password and all
        (place / "params.yaml").chmod(0o600)
    if track:
        tracking.keep(place, "deltarule run")
    places = RunPaths(place, base=project, project=project)
    recording = Recording(experiment, places, new_run=True, name=name, on=track)
    reports: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    try:
        with recorded(recording):
            for stage in ("split", "train", "validate", *(["test"] if test else [])):
                began = time.perf_counter()
                if stage == "train":
                    reports[stage] = train_recorded(experiment, places, progress, recording)
                else:
                    reports[stage] = getattr(stages, stage)(experiment, places)
                seconds[stage] = round(time.perf_counter() - began, 3)
                if stage == "train":
                    recording.stage()
    finally:
        began = time.perf_counter()
        outcome = recording.close()
        seconds["record"] = round(time.perf_counter() - began, 3)
        # Where the data could not be used, the folder holds its spec alone, and how it was begun.
        if folder is None and {path.relative_to(place).as_posix() for path in place.rglob("*")} <= UNBEGUN:
            rmtree(place)
            if not any(place.parent.iterdir()):
                place.parent.rmdir()
    return Run(place, outcome.run_id, seconds, tuple(filter(None, [outcome.warning])), outcome.complete, reports)


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
        told: BaseException | None = error  # or the Ctrl-C or SIGTERM that it came of
        while told is not None and isinstance(told, Exception):
            told = told.__context__
        if told is None:
            recording.fail(str(error) or type(error).__name__)
        else:
            recording.kill("interrupted by Ctrl-C" if isinstance(told, KeyboardInterrupt) else "ended by SIGTERM")
        raise
    recording.finish()


@contextmanager
def halting() -> Iterator[Callable[[], None]]:
    """Holds SIGTERM back until what it yields is called, where a checkpoint can be written; then what the signal would have done.

    At once all the same for a second signal, and when that takes too long. Where a signal would simply end the process, or
    outside of the main thread, nothing is changed.
    """
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    came = False

    def end(*_: Any) -> None:
        nonlocal came
        came = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        before(signal.SIGTERM, None)

    def hold(*_: Any) -> None:
        nonlocal came
        if came:
            end()
        came = True
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    def halt() -> None:
        if came:
            end()

    alarm = signal.signal(signal.SIGALRM, end)
    signal.signal(signal.SIGTERM, hold)
    try:
        yield halt
        halt()
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)


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
