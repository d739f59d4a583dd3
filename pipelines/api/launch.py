"""One experiment from its spec to its record, in this process: what `deltarule run` and notebooks share."""

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

from backends.errors import interruption
from backends.weights import write_atomically
from pipelines import stages, tracking
from pipelines.api.results import Run
from pipelines.api.unfinished import BEGUN, RUNS, Launch, is_done
from pipelines.project import project_of
from pipelines.record import Recording
from pipelines.redact import redact
from pipelines.spec import Experiment, dump
from pipelines.stages import HeldError, RunPaths
from pipelines.stages.files import read_json
from pipelines.tracking.journal import new_name
from pipelines.tracking.store import remembered

Progress = Callable[[dict[str, float]], None]  # an epoch's record
KEPT = {f".deltarule/{name}" for name in ("begun", "begun/tags.json", "begun/uncommitted.diff", "stage.lock")}
UNBEGUN = {"params.yaml", ".deltarule", "outputs", "outputs/data", str(BEGUN), *KEPT}  # of a launch without data
GRACE_SECONDS = 5.0  # who sends SIGTERM often kills after ten


def launch(
    experiment: Experiment,
    folder: Path | None = None,
    *,
    name: str | None = None,
    test: bool = False,
    track: bool = True,
    progress: Progress | None = None,
    begun: Callable[[Path], None] = lambda folder: None,
    resume: bool = False,
) -> Run:
    """Split, train, validate, with `test` also test, in a new folder; with `track` also into MLflow.

    A relative data.source starts at the project's root. A store that fails is a warning: the outs are kept. With `resume` the
    run of this spec in `folder` that was cut short goes on, as it was begun and as the same run in MLflow. Raises what the
    stages do, and FileExistsError if `folder` exists and is not empty.
    """
    project = project_of(Path())
    if resume and folder is not None:
        place, how = folder, Launch.of(experiment, folder)
    else:
        called = name or f"{Path(experiment.data.shown_source).stem}-{experiment.train.backend}-{experiment.model.activation}"
        # Its name is on record too.
        place = folder or new_folder(project / RUNS, redact(called))
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            raise FileExistsError(f"the folder of a launch must be empty, got {place}; choose another, or remove what it holds")
        how = Launch(name, test, track, new_name())
    begun(place)
    places = RunPaths(place, base=project, project=project)
    recording = Recording(experiment, places, new_run=True, name=how.name, on=how.track, log=how.log)
    reports: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    try:
        spec = dump(experiment)
        with places.locked():  # before it can be resumed
            write_atomically(place / "params.yaml", spec.encode())
            if redact(spec) != spec:  # a password, to run it again
                (place / "params.yaml").chmod(0o600)
        with places.locked(), how.kept(place):
            if how.track:
                kept = {"name": how.name, "journal": how.log, "tracking": remembered(experiment.tracking)}
                tracking.keep(place, "deltarule run", launch=kept)
            with recorded(recording):
                for stage in ("split", "train", "validate", *(["test"] if how.test else [])):
                    began = time.perf_counter()
                    if report := _carry_out(stage, experiment, places, progress, recording, resume):
                        reports[stage] = report
                    seconds[stage] = round(time.perf_counter() - began, 3)
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


def _carry_out(
    stage: str, experiment: Experiment, places: RunPaths, progress: Progress | None, recording: Recording, resume: bool
) -> dict[str, Any]:
    """A stage of a launch, what it returned; nothing of rows that were split before."""
    done = resume and is_done(stage, experiment, places)
    if stage != "train":
        return {} if done else getattr(stages, stage)(experiment, places)
    if done:
        recording.start(read_json(places.run)["fingerprint"], 1)
        report = read_json(places.trained / "metrics.json")
    else:
        report = train_recorded(experiment, places, progress, recording)
    recording.stage()
    return report


def train_recorded(experiment: Experiment, places: RunPaths, progress: Progress | None, recording: Recording) -> dict[str, Any]:
    """The stage train, each epoch told; SIGTERM ends it with a checkpoint."""

    def epoch(record: dict[str, float]) -> None:
        recording.epoch(record)
        if progress is not None:
            progress(record)

    with halting() as halt:
        return stages.train(experiment, places, epoch, begun=recording.start, halt=halt)


@contextmanager
def recorded(recording: Recording) -> Iterator[None]:
    """Ends the record as the run ends: as the outs say, FAILED with an error's message, or KILLED."""
    try:
        yield
    except HeldError:  # its outs are there
        recording.finish()
        raise
    except BaseException as error:
        told = interruption(error)
        if told is None:
            recording.fail(str(error) or type(error).__name__)
        else:
            recording.kill("interrupted by Ctrl-C" if isinstance(told, KeyboardInterrupt) else "ended by SIGTERM")
        raise
    recording.finish()


@contextmanager
def halting() -> Iterator[Callable[[], None]]:
    """Holds SIGTERM back until what it yields is called; not a second one, and not for long.

    Where a signal would simply end the process, or outside of the main thread, nothing is changed.
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
