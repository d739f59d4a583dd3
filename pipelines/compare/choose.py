"""Which runs are meant: those of the project, the trials of a study, what an expression is true of, or some by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.compare.keys import QueryError
from pipelines.compare.where import chosen
from pipelines.spec.describe import nearest
from pipelines.tracking.lookup import LAUNCH, LEAST
from pipelines.tracking.query import KIND, STUDY, Recorded, recorded

if TYPE_CHECKING:
    from pipelines.spec import Tracking

SHOWN = 5  # of several runs that a text may mean


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
    for means in (lambda run: run.tags.get(STUDY) == text or run.id == text, lambda run: _begins(run, text)):
        if found := [run for run in studies if means(run)]:
            return found[0]
    names = list(dict.fromkeys(run.tags.get(STUDY, run.name) for run in studies))
    hint = nearest(text, names) if names else "there are none; `deltarule search` makes one"
    raise QueryError(f"no study {text!r} is on record; {hint}")


def pick(runs: Sequence[Recorded], texts: Sequence[str], project: Path) -> list[Recorded]:
    """The runs that are named, in that order: each by its id, the folder of a launch, its name, or the start of its id.

    Raises QueryError where a text names no run, or several.
    """
    return list({run.id: run for run in (_one(runs, text.strip(), project) for text in texts)}.values())


def _one(runs: Sequence[Recorded], text: str, project: Path) -> Recorded:
    folders = _folders(text, project)
    ways: tuple[Callable[[Recorded], bool], ...] = (
        lambda run: run.id == text,
        lambda run: run.tags.get(LAUNCH) in folders,
        lambda run: run.name == text,
        lambda run: _begins(run, text),
    )
    for means in ways:
        found = [run for run in runs if means(run)]
        if len(found) > 1:
            each = ", ".join(f"{run.id[:8]} ({run.name})" for run in found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
            raise QueryError(f"{text} must name one run, and names {len(found)}: {each}; give an id, or --where for several")
        if found:
            return found[0]
    raise QueryError(
        f"no run is on record under {text!r}: it must be the id of a run, at least {LEAST} of its first characters, its name, "
        "or the folder of a launch (runs/...); `deltarule runs` lists them, `deltarule sync` puts on record what waits"
    )


def _begins(run: Recorded, text: str) -> bool:
    return bool(re.fullmatch(rf"[0-9a-f]{{{LEAST},32}}", text)) and run.id.startswith(text)


def _folders(text: str, project: Path) -> set[str]:
    """What the tag of a launch in this folder may be: below the project, or as it was typed."""
    plain = text.rstrip("/").removeprefix("./")
    here = Path(plain).expanduser().resolve()
    below = {here.relative_to(project).as_posix()} if here.is_relative_to(project) else set()
    return {plain, *below} - {"", "."}
