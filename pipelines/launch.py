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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.spec import Experiment
    from pipelines.stages import Places

Progress = Callable[[dict[str, float]], None]  # an epoch's record
RUNS = Path("runs")
UNBEGUN = {"params.yaml", ".deltarule", ".deltarule/stage.lock", "outputs", "outputs/data"}
WAITING = Path(".deltarule/waits-for-the-store")  # in the folder of a launch that is not on record


@dataclass
class Launch:
    """What a launch did so far."""

    folder: Path
    run_id: str | None = None
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
    from pipelines import stages
    from pipelines.project import project_of
    from pipelines.spec import dump

    project = project_of(Path())
    done = Launch(new_folder(project / RUNS, name or slug(experiment)) if folder is None else empty_folder(folder))
    begun(done)
    (done.folder / "params.yaml").write_text(dump(experiment), encoding="utf-8")
    places = stages.Places(done.folder, base=project, project=project)
    try:
        _carry_out(done, experiment, places, test, progress)
    finally:
        if track and places.run.exists():
            _record(done, experiment, places, name)
        if folder is None:
            _leave_nothing(done.folder)
    return done


def _leave_nothing(folder: Path) -> None:
    """Take a launch's folder away if its data could not be used: then it holds its spec alone, and a stage's lock."""
    if {path.relative_to(folder).as_posix() for path in folder.rglob("*")} <= UNBEGUN:
        rmtree(folder)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def _carry_out(done: Launch, experiment: Experiment, places: Places, test: bool, progress: Progress | None) -> None:
    from pipelines import stages

    with _timed(done, "split"):
        done.reports["split"] = stages.split(experiment, places)
    with _timed(done, "train"):
        done.reports["train"] = stages.train(experiment, places, progress)
    with _timed(done, "validate"):
        done.reports["validate"] = stages.validate(experiment, places)
    if test:
        with _timed(done, "test"):
            done.reports["test"] = stages.test(experiment, places)


def _record(done: Launch, experiment: Experiment, places: Places, name: str | None) -> None:
    from pipelines import tracking

    with _timed(done, "record"):
        try:
            done.run_id = tracking.sync(places, experiment, new_run=True, name=name, project=places.project)
        except tracking.TrackingError as error:
            done.warnings.append(str(error))
            (done.folder / WAITING).parent.mkdir(exist_ok=True)
            (done.folder / WAITING).write_text(name or "", encoding="utf-8")


def send_waiting(project: Path) -> Iterator[tuple[str, str | None]]:
    """Put the launches and studies on record that the store did not take at their time: (folder, run id) of each.

    Each with the spec that it was launched with. Raises TrackingError if the store fails again.
    """
    from pipelines import stages, tracking
    from pipelines.spec import load

    for waiting in sorted(project.glob(f"{RUNS}/*/{WAITING}")):
        folder = waiting.parents[1]
        places = stages.Places(folder, base=project, project=project)
        name = waiting.read_text(encoding="utf-8") or None
        run_id = tracking.sync(places, load(folder / "params.yaml"), new_run=True, name=name, project=project)
        waiting.unlink()
        yield shown(folder), run_id
    if (project / "studies").is_dir():  # else Optuna's packages need not be looked at
        from pipelines.search.record import send_waiting_studies

        yield from send_waiting_studies(project)


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
