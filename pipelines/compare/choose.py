"""Which runs are meant: those of the project, the trials of a study, what an expression is true of, or some by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.compare.keys import QueryError
from pipelines.compare.where import chosen
from pipelines.spec.describe import nearest
from pipelines.tracking.events import KIND, STUDY
from pipelines.tracking.query import Recorded, begins, meant, recorded
from pipelines.tracking.store import LookupFailed

if TYPE_CHECKING:
    from pipelines.spec import Tracking


def choose(
    tracking: Tracking, project: Path, *, study: str | None = None, where: str | None = None, children: bool = False
) -> list[Recorded]:
    """Runs of the project's experiment, newest first: without the trials of studies, with `children` these too, or of `study`.

    `study` is its name (the newest of that name), or its run's id. Raises QueryError for a study that there is not and an
    expression that cannot be meant, TrackingError if the store fails.
    """
    if study is None:
        return chosen(recorded(tracking, project, children=children), where)
    return chosen(recorded(tracking, project, parent=study_of(recorded(tracking, project), study).id), where)


def study_of(runs: Sequence[Recorded], text: str) -> Recorded:
    """The run of a study, by its name or its id."""
    studies = [run for run in runs if run.tags.get(KIND) == "study"]
    for means in (lambda run: run.tags.get(STUDY) == text or run.id == text, lambda run: begins(run.id, text)):
        if found := [run for run in studies if means(run)]:
            return found[0]
    names = list(dict.fromkeys(run.tags.get(STUDY, run.name) for run in studies))
    hint = nearest(text, names) if names else "there are none; `deltarule search` makes one"
    raise QueryError(f"no study {text!r} is on record; {hint}")


def pick(runs: Sequence[Recorded], texts: Sequence[str], project: Path) -> list[Recorded]:
    """The runs that are named, in that order, each as query.meant has it. Raises QueryError."""
    try:
        return list({run.id: run for run in (meant(runs, text, project) for text in texts)}.values())
    except LookupFailed as error:
        raise QueryError(str(error)) from None
