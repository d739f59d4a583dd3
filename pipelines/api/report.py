"""The report of a run, from its folder alone."""

from __future__ import annotations

from pathlib import Path

from backends.weights import write_atomically
from pipelines.report import figures, run_page
from pipelines.spec import Experiment, SpecError, load
from pipelines.stages import RunPaths, StageError


def write_report(folder: Path, path: Path) -> None:
    """The page of the run in `folder`, whole or not at all. Raises StageError if nothing was trained there."""
    places = RunPaths(folder)
    if not folder.is_dir():
        raise StageError(
            f"RUN_FOLDER must be the folder of a run, such as runs/..., or . for the pipeline's; found none at {folder}", 2
        )
    for needed, command in ((places.about, "split"), (places.run, "train")):
        places.need(needed, command)
    write_atomically(path, run_page(folder, figures(folder), _spec_of(folder)).encode())


def _spec_of(folder: Path) -> Experiment | None:
    """The spec beside the outs, for what they do not hold of it; a report does without one that is missing or wrong by now."""
    try:
        return load(folder / "params.yaml")
    except (SpecError, OSError):
        return None
