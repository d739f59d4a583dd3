"""What params.yaml tells a newcomer of the data, from the look that `deltarule data` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.data.columns import DataError
from pipelines.data.look import ColumnLook, Look, look, shown
from pipelines.new.errors import ProjectError
from pipelines.spec import DataSpec, Experiment, models_schema
from pipelines.spec.file import as_option, known_path

FIELDS = 80  # of a file with more columns, only those that are remarkable stand in params.yaml
NAMED = 5  # categories and classes that a comment names
# What people write where they have no number. Among words, such as codes of countries, NA may be one of them.
NO_VALUE = {"na", "n/a", "#n/a", "nan", "null", "none", "nil", "-", "--", "?", ".", "missing", "unknown"}


@dataclass(frozen=True)
class Field:
    """A column: what it holds, and what a newcomer would want to know about it."""

    name: str
    kind: str
    note: str = ""


@dataclass(frozen=True)
class View:
    """What params.yaml says of the data. `problems` must be fixed in it before it can run, `suspicions` are questions."""

    target: tuple[str, ...]
    task: str  # as the spec says it
    meant: str  # what that stands for
    about_source: str
    about_target: str
    fields: tuple[Field, ...]
    markers: tuple[str, ...]
    about_markers: str
    problems: tuple[str, ...]
    changes: Mapping[tuple[str | int, ...], Any] = field(default_factory=dict)  # path -> value, as asked for
    suspicions: tuple[str, ...] = ()


def view(data: Path, target: Sequence[str], task: str, changes: Mapping[str, object]) -> View:
    """Look at a file. Raises ProjectError, SpecError or DataError for one that no spec could use, or not with these changes."""
    block = _block(data, target, task, changes)
    try:
        found = look(block)
    except DataError as error:
        raise DataError(as_option(str(error))) from None
    where = _numbers_with_gaps(found)
    if where:
        markers = (*block.missing.markers, *sorted({word for words in where.values() for word in words}))
        found = look(block.model_copy(update={"missing": block.missing.model_copy(update={"markers": markers})}))
        about_markers = f"texts of a cell that mean no value; found among the numbers of {', '.join(where)}"
    else:
        markers, about_markers = block.missing.markers, "texts of a cell that mean no value, such as NA or ?"
    if found.refused or not found.task:  # a target that is not there, has no values or does not suit --task
        problem = as_option(found.refused) or f"{data}: the file has no rows"
        raise ProjectError(problem.replace("--set data.task=", "--task "))
    repeated = f"; {found.duplicates} rows repeat an earlier one" if found.duplicates else ""
    return View(
        target=tuple(target),
        task=task,
        meant=found.task,
        about_source=f"{found.rows} rows, {len(found.columns)} columns{repeated}",
        about_target=_target(found),
        fields=tuple(_fields(found)),
        markers=markers,
        about_markers=about_markers,
        problems=found.problems,
        changes=dict(_leaves(changes)),
        suspicions=tuple(f"{one.kind}: {one.column}: {one.why}" for one in found.suspicions),
    )


def _block(data: Path, target: Sequence[str], task: str, changes: Mapping[str, object]) -> DataSpec:
    for path in changes:
        if not path.startswith("data."):
            raise ProjectError(f"--set {path}: must be a path below data, such as data.format.encoding; params.yaml has the rest")
        option = path.split(".")[1]
        if option in ("source", "target", "task"):
            raise ProjectError(f"--set {path}: must be given as --{option.replace('source', 'data')}")
    named = target[0] if len(target) == 1 else list(target)
    stated = {"data.source": str(data), "data.target": named, "data.task": task}
    return Experiment().override({**stated, **changes}).data


def _leaves(changes: Mapping[str, object]) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """The changes one value at a time, so that what stands beside one in params.yaml stays; markers are in the view."""
    for name, value in changes.items():
        for path, leaf in _of_mapping(known_path(name, models_schema()), value):
            if path != ("data", "missing", "markers"):
                yield path, leaf


def _of_mapping(path: tuple[str | int, ...], value: object) -> Iterator[tuple[tuple[str | int, ...], object]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for key, inner in value.items():
        yield from _of_mapping((*path, key), inner)


def _numbers_with_gaps(found: Look) -> dict[str, list[str]]:
    """column -> its words that mean no value, of the columns of numbers where such words stand."""
    words = {column.name: [word for word in column.odd if word.lower() in NO_VALUE] for column in found.columns}
    return {name: there for name, there in words.items() if there}


def _target(found: Look) -> str:
    if found.classes:
        shown = [f"{name} {rows}" for name, rows in [*found.classes.items()][:NAMED]]
        more = f", and {len(found.classes) - NAMED} more" if len(found.classes) > NAMED else ""
        return f"{len(found.classes)} classes, rows of each: {', '.join(shown)}{more}"
    spread = [_spread(column) for column in found.columns if column.name in found.targets]
    return "; ".join(filter(None, spread))


def _fields(found: Look) -> Iterator[Field]:
    warned = {suspicion.column: suspicion.why for suspicion in found.suspicions}
    few = len(found.columns) <= FIELDS
    for column in found.columns:
        if column.name in found.targets:
            continue
        if few or column.kind == "ignore" or column.problem or column.name in warned:
            notes = [_odd(column), column.note, warned.get(column.name, ""), _gaps(column), _spread(column)]
            yield Field(column.name, column.kind, "; ".join(filter(None, notes)))


def _odd(column: ColumnLook) -> str:
    return f"fix: it holds {', '.join(map(repr, column.odd[:NAMED]))} too" if column.problem and column.odd else ""


def _gaps(column: ColumnLook) -> str:
    return f"{column.missing} missing" if column.missing and column.kind != "ignore" else ""


def _spread(column: ColumnLook) -> str:
    """Its range, or its most frequent values."""
    if column.kind == "ignore":
        return f"such as {column.example}" if column.example else ""
    if column.least is not None and column.greatest is not None:
        return f"{shown(column.kind, column.least)} to {shown(column.kind, column.greatest)}"
    names = [name for name, _ in column.frequent[:NAMED]]
    return f"{column.distinct}: {', '.join(names)}{', ...' if column.distinct > len(names) else ''}"
