"""Launches that were cut short, by a kill or a full disk say, or whose record was lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.errors import interruption
from pipelines.data import DataError
from pipelines.spec import Experiment, SpecError, Tracking, load
from pipelines.stages import HeldError, RunPaths, StageError
from pipelines.stages.files import read_json, write_json
from pipelines.stages.networks import differences, load_networks, split_rows
from pipelines.tracking import provenance
from pipelines.tracking.backlog import journals, title
from pipelines.tracking.events import KIND, LAUNCH, STUDY
from pipelines.tracking.query import recorded
from pipelines.tracking.store import TrackingError, remembered, store_of

RUNS = Path("runs")
BEGUN = Path(".deltarule/launch.json")  # below the folder of a launch
STUDY_NOTES = "studies/*/.deltarule/record.json"
OVER = (HeldError, SpecError, DataError)  # what would come of it once more


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
        return cls(**read_json(folder / BEGUN))

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


def unfinished(project: Path) -> list[Path]:
    """Folders of the launches below runs/ that can be resumed, the oldest first."""
    found = sorted(path.parents[1] for path in (project / RUNS).glob(f"*/{BEGUN}"))
    return [folder for folder in found if (folder / "params.yaml").is_file() and RunPaths(folder).is_free()]


def elsewhere(project: Path, tracking: Tracking) -> Iterator[str]:
    """A sentence of each run that waits for another store than today's."""
    for journal in journals(project):
        try:
            store_of(journal.head(), tracking, project)
        except TrackingError as error:
            yield str(error)


@dataclass(frozen=True)
class Lost:
    """What is over and not on record."""

    launches: list[tuple[Path, dict[str, Any]]]  # folder, how it was begun
    studies: list[Path]  # the notes that say which trials were sent


def lost(project: Path, tracking: Tracking, here: bool) -> Lost:
    """Launches below runs/ and studies that today's store does not have.

    Those that were begun for it, or all if wanted `here`. Raises TrackingError.
    """
    waiting, over, notes = {title(journal.head()) for journal in journals(project)}, {}, {}
    for path in sorted((project / RUNS).glob(f"*/{provenance.KEPT}/tags.json")):
        folder, kept = path.parents[2], read_json(path).get("launch")
        ours = here or (kept and kept["tracking"] == remembered(tracking))
        if ours and not (folder / BEGUN).exists() and RunPaths(folder).run.is_file():
            over[folder.relative_to(project).as_posix()] = folder, kept or {}
    for path in project.glob(STUDY_NOTES):
        if here or read_json(path).get("tracking") == remembered(tracking):
            notes[f"studies/{path.parents[1].name}"] = path
    if not (over.keys() | notes.keys()) - waiting:
        return Lost([], [])
    there = list(recorded(tracking, project, deleted=True))
    launches = {run.tags.get(LAUNCH) for run in there if run.status != "RUNNING"}
    studies = {f"studies/{run.tags.get(STUDY)}" for run in there if run.tags.get(KIND) == "study"}
    return Lost(
        [over[name] for name in sorted(over.keys() - waiting - launches)],
        [notes[name] for name in sorted(notes.keys() - waiting - studies)],
    )


def choose(project: Path, name: str | None) -> Path:
    """The folder of the launch that can be resumed, or of the newest that is called so. Raises StageError."""
    found = unfinished(project)
    names = {folder: (folder.name, f"{RUNS}/{folder.name}", folder.name.split("-", 2)[-1]) for folder in found}
    meant = [folder for folder in found if name is None or name.rstrip("/") in names[folder]]
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
