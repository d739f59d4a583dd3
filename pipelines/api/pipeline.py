"""The pipeline where it stands: one stage of it, and what waits for the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines import stages, tracking
from pipelines.api.launch import Progress, recorded, train_recorded
from pipelines.api.unfinished import lost
from pipelines.project import project_of
from pipelines.record import Recording
from pipelines.record import sync as record
from pipelines.spec import Experiment, Tracking, load
from pipelines.stages import HeldError, RunPaths
from pipelines.tracking import TrackingError, Waiting


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
    went_well = False
    try:
        with recorded(recording):
            report = train_recorded(experiment, places, progress, recording)
        went_well = True
    finally:
        if went_well and "DVC_STAGE" in os.environ:
            recording.close(leave=False)
        elif warning := recording.close().warning:
            warn(warning)
    return report


@dataclass
class Synced:
    """What is on record now: the pipeline's run, what had waited, and why not all of it."""

    run_id: str | None = None
    waited: dict[str, str | None] = field(default_factory=dict)  # folder or name -> run id
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
        for note in gone.studies:
            note.unlink()  # its trials are to be sent once more
        if gone.studies:
            done.waited |= send_waiting(project, experiment.tracking, here)
        for folder, kept in gone.launches:
            own = load(folder / "params.yaml")
            if own.tracking.enabled:
                places = RunPaths(folder, base=project, project=project)
                spec = own.model_copy(update={"tracking": experiment.tracking})
                how = {key: kept.get(key) for key in ("name", "journal")}
                done.waited[folder.relative_to(project).as_posix()] = record.sync(places, spec, new_run=True, **how)
    except TrackingError as error:
        done.failure = error
    return done


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
