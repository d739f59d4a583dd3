"""One experiment from its spec to its record, in this process: what `deltarule run` and notebooks share."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from shutil import rmtree
from typing import Any

from pydantic import TypeAdapter, ValidationError

from backends.errors import interruption
from backends.weights import write_atomically
from pipelines import stages, tracking
from pipelines.api.results import Run
from pipelines.data import DataError
from pipelines.project import project_of
from pipelines.record import Recording
from pipelines.redact import redact
from pipelines.spec import Experiment, SpecError, dump, load
from pipelines.stages import HeldError, RunPaths, StageError
from pipelines.stages.files import damaged, read_json, write_json
from pipelines.stages.networks import differences, load_networks, split_rows
from pipelines.tracking.journal import new_name
from pipelines.tracking.store import remembered

Progress = Callable[[dict[str, float]], None]  # an epoch's record
RUNS = Path("runs")
BEGUN = Path(".deltarule/launch.json")  # below the folder of a launch
OVER = (HeldError, SpecError, DataError)  # what would come of it once more
GRACE_SECONDS = 5.0  # who sends SIGTERM often kills after ten


@dataclass(frozen=True)
class Launch:
    """How a launch was begun, for it to go on as the same run."""

    name: str | None
    test: bool
    track: bool
    log: str  # the name of its journal, by which MLflow knows the run too

    @classmethod
    def of(cls, experiment: Experiment, folder: Path) -> Launch:
        """The one in `folder` that is not over. Raises StageError if there is none, or if it is of another spec."""
        if not (folder / BEGUN).is_file():
            raise StageError(f"{folder} holds no run that can be resumed: it is over, or was never begun", 2)
        now = experiment.model_dump(mode="json")
        spec = folder / "params.yaml"
        other = list(differences(load(spec).model_dump(mode="json"), now)) if spec.exists() else []
        if other:
            told = ", ".join(other[:5])
            raise StageError(f"the run in {folder} is of another spec: {told}; begin it in another folder", 2)
        try:
            return TypeAdapter(cls).validate_python(read_json(folder / BEGUN))
        except ValidationError:
            raise damaged(folder / BEGUN) from None

    @contextmanager
    def kept(self, folder: Path) -> Iterator[None]:
        """It stands in the folder until the launch ends, or fails by an error that would only come again."""
        write_json(folder / BEGUN, asdict(self))
        try:
            yield
        except OVER as error:
            if interruption(error) is None:
                (folder / BEGUN).unlink()
            raise
        (folder / BEGUN).unlink()


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
        if folder is None and "split" not in seconds and not places.about.exists():
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
    folder, number = parent / stem, 1
    while True:
        with suppress(FileExistsError):
            folder.mkdir()  # the one step that only one of two processes can win
            return folder
        number += 1
        folder = parent / f"{stem}-{number}"


# -- what was cut short --


def unfinished(project: Path) -> list[Path]:
    """Folders of the launches below runs/ that can be resumed, the oldest first."""
    found = sorted(path.parents[1] for path in (project / RUNS).glob(f"*/{BEGUN}"))
    return [folder for folder in found if (folder / "params.yaml").is_file() and RunPaths(folder).is_free()]


def choose(project: Path, name: str | None) -> Path:
    """The folder of the launch that can be resumed, or of the newest that is called so. Raises StageError."""
    found = unfinished(project)
    last = name and name.removeprefix(f"{RUNS}/").rstrip("/")
    meant = [folder for folder in found if last in (None, folder.name, folder.name.split("-", 2)[-1])]
    if not meant or (name is None and len(meant) > 1):
        known = ", ".join(folder.name for folder in found) or "none"
        got = "no name" if name is None else repr(name)
        raise StageError(f"--resume must name a run that was cut short, got {got}; there are: {known}", 2)
    return meant[-1]


def is_done(stage: str, experiment: Experiment, places: RunPaths) -> bool:
    """Whether the outs of split or train are there whole, and of this spec."""
    if stage not in ("split", "train"):
        return False
    try:
        for one in split_rows(experiment, places).each:
            one.open(places.data, "train"), one.open(places.data, "valid")
        return stage == "split" or bool(load_networks(experiment, places))
    except (StageError, ValueError, OSError):
        return False
