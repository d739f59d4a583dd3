"""The pipeline where it stands: one stage of it, and what waits for the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines import stages, tracking
from pipelines.api.launch import BEGUN, RUNS, Progress, recorded, train_recorded
from pipelines.data import DataError
from pipelines.project import project_of
from pipelines.record import Recording
from pipelines.record import sync as record
from pipelines.spec import Experiment, Tracking, load
from pipelines.stages import HeldError, RunPaths, StageError
from pipelines.stages.files import damaged, read_json
from pipelines.tracking import TrackingError, Waiting, provenance, query
from pipelines.tracking.events import KIND, LAUNCH, STUDY
from pipelines.tracking.journal import journals
from pipelines.tracking.store import Refused, remembered, store_of

STUDY_NOTES = "studies/*/.deltarule/record.json"


def run_stage(name: str, experiment: Experiment, progress: Progress, warn: Callable[[str], None]) -> dict[str, Any]:
    """One stage in this folder, and of train its record; what it returned. `warn` is told what waits for the store.

    Where DVC runs train, the stage `record` comes next and sends what is missing: a run that went well is not waited for.
    """
    places = RunPaths(Path())
    if name != "train":
        try:
            return dict(getattr(stages, name)(experiment, places))
        except HeldError:  # the pipeline ends here, and will not come to its own `record`
            try:
                record.sync(places, experiment)
            except TrackingError as error:
                warn(str(error))
            raise
    recording = Recording(experiment, places)
    leave = True
    try:
        with recorded(recording):
            report = train_recorded(experiment, places, progress, recording)
        leave = "DVC_STAGE" not in os.environ
    finally:
        warning = recording.close(leave).warning
        if leave and warning:
            warn(warning)
    return report


@dataclass
class Synced:
    """What is on record now: the pipeline's run, what had waited, and why not all of it."""

    run_id: str | None = None
    waited: dict[str, str | None] = field(default_factory=dict)  # folder or name -> run id
    makers: dict[str, str] = field(default_factory=dict)  # folder -> who began it, if not we
    failure: TrackingError | None = None  # of what had waited


def sync(experiment: Experiment, here: bool = False) -> Synced:
    """Put on record the pipeline's last run, what the store did not take at its time, and launches and studies that it lost.

    With `here` also what is for another store, or on record in another place. Raises TrackingError; not if the run is there
    and only what had waited is not: no reason to hold the pipeline.
    """
    project, places, done = project_of(Path()), RunPaths(Path()), Synced()
    tracking.mark_killed(project)
    if places.run.exists():
        done.run_id = record.sync(places, experiment)
    try:
        done.waited |= send_waiting(project, experiment.tracking, here)
        if not experiment.tracking.enabled:
            return done
        gone = lost(project, experiment.tracking, here)
        launches = {name: note for name, note in gone.items() if name.startswith(f"{RUNS}/")}
        for name in gone.keys() - launches.keys():
            gone[name].unlink()  # the study's trials are to be sent once more
        if len(gone) > len(launches):
            done.waited |= send_waiting(project, experiment.tracking, here)
        failed = []
        for name, note in launches.items():
            try:
                done.waited |= _record_anew(project, name, note, experiment.tracking)
                tags, _ = provenance.kept(project / name)
                maker = tags.get("mlflow.user", provenance.user())
                if maker != provenance.user():
                    done.makers[name] = maker
            # A damaged one hinders no other.
            except (Refused, StageError, ValueError, OSError) as error:
                failed.append(f"{name} cannot be put on record: {error}")
        if failed:
            raise TrackingError("\n".join(failed))
    except TrackingError as error:
        done.failure = error
    return done


def _record_anew(project: Path, name: str, note: Path, tracked: Tracking) -> dict[str, str | None]:
    """A launch that the store lost: its folder -> run id.

    Nothing where its spec has it off the record.
    """
    own, kept = load(project / name / "params.yaml"), _told(note)
    if not own.tracking.enabled:
        return {}
    places = RunPaths(project / name, base=project, project=project)
    spec = own.model_copy(update={"tracking": tracked})
    how = {key: kept.get(key) for key in ("name", "journal")}
    return {name: record.sync(places, spec, new_run=True, **how)}


def _told(note: Path) -> dict[str, Any]:
    """What a note says of the launch or the study.

    Raises DataError where it is damaged.
    """
    told = read_json(note)
    launch = told.get("launch", told)
    if not isinstance(launch, dict):
        raise damaged(note)
    for key in ("name", "journal"):
        if not isinstance(launch.get(key), str | None):
            raise damaged(note)
    return launch


def send_waiting(project: Path, tracked: Tracking, here: bool = False) -> Iterator[tuple[str, str | None]]:
    """Put the runs and studies on record that wait for the store: (folder or name, run id) of each."""
    if (project / "studies").is_dir():  # else Optuna's packages need not be looked at
        from pipelines.search.record import journal_studies

        journal_studies(project)
    yield from record.send_waiting(project, tracked, here=here)


def waiting(project: Path) -> tuple[list[Waiting], list[dict[str, str]]]:
    """The runs and studies that wait for the store or are going on, and of the studies what is not on record yet."""
    found = tracking.waiting(project)
    studies = [{"study": one.run, "status": one.state.split()[0].upper()} for one in found if one.is_study]
    if (project / "studies").is_dir():
        from pipelines.search.record import unwritten_studies

        studies += [{"study": folder, "status": ""} for folder in unwritten_studies(project)]
    return found, studies


def elsewhere(project: Path, tracking: Tracking) -> Iterator[str]:
    """A sentence of each run that waits for another store than today's."""
    for journal in journals(project):
        try:
            store_of(journal.head(), tracking, project)
        except TrackingError as error:
            yield str(error)


def lost(project: Path, tracking: Tracking, here: bool) -> dict[str, Path]:
    """Folder -> its note, of the launches below runs/ and the studies that are over, and that today's store does not have.

    Those that were begun for it, or all if wanted `here`. Raises TrackingError.
    """
    notes = {}
    for note in sorted((project / RUNS).glob(f"*/{provenance.KEPT}/tags.json")):
        folder = note.parents[2]
        if RunPaths(folder).run.is_file() and not (folder / BEGUN).exists():
            notes[folder] = note
    notes |= {note.parents[1]: note for note in project.glob(STUDY_NOTES)}
    found = {}
    for folder, note in notes.items():
        with suppress(DataError):  # it is told of when it is sent
            if not here and _told(note).get("tracking") != remembered(tracking):
                continue
        found[folder.relative_to(project).as_posix()] = note
    for waits in journals(project):
        found.pop(waits.title, None)
    there = query.recorded(tracking, project, deleted=True) if found else ()
    known = {run.tags.get(LAUNCH) for run in there if run.status != "RUNNING"}
    known |= {f"studies/{run.tags.get(STUDY)}" for run in there if run.tags.get(KIND) == "study"}
    return {name: note for name, note in found.items() if name not in known}
