"""What is to be predicted: which task a target stands for, and its values as the loss takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from backends.spec import Task
from pipelines.data.columns import DataError, NDArray, Source

MANY_CLASSES = 20  # whole numbers with more values than this are taken for a regression target


@dataclass(frozen=True)
class Target:
    """The task, and y as `backends.tasks.targets` takes it. `classes` are sorted; empty for regression."""

    task: Task
    names: tuple[str, ...]
    classes: tuple[str, ...]
    y: NDArray

    @property
    def outputs(self) -> int:
        """Outputs of a network for it."""
        return {"regression": len(self.names), "binary": 1, "multiclass": len(self.classes)}[self.task]


@dataclass(frozen=True)
class Read:
    """Target columns as they were read: numbers, (n, m), or, with `labels`, places in them, (n, 1)."""

    source: Source
    values: NDArray
    labels: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return self.source.targets

    def spell(self, values: NDArray | Sequence[Any]) -> str:
        """The first five of many."""
        spelled = [self.labels[int(v)] if self.labels else _spell(v) for v in values[:5]]
        return ", ".join(spelled) + (", ..." if len(values) > 5 else "")


def find_target(source: Source, task: Task | Literal["auto"]) -> Target:
    """The target under the task that the spec states, or under the one it looks like.

    Raises DataError for a target that has gaps, is constant, or does not suit the task.
    """
    target = read_target(source)
    _refuse_constant(target)
    task = detect(target) if task == "auto" else task
    return _regression(target) if task == "regression" else _classification(target, task)


def read_target(source: Source) -> Read:
    """Raises DataError for a value that is missing, and for kinds of columns that cannot be predicted."""
    columns = []
    for name in source.targets:
        kind = source.kinds[name]
        if kind in ("datetime", "ignore"):
            way_out = "numeric or categorical"
            raise DataError(
                f"{source.name}: target {name!r} must be numeric, categorical or boolean, found {kind}; "
                f"set data.columns: {{{name}: ...}} to {way_out}, or choose another target"
            )
        column = source.fetch(name)
        if kind != "numeric" and len(source.targets) > 1:
            raise DataError(
                f"{source.name}: several targets must be numbers, found {name!r} to be {kind} among {', '.join(source.targets)}"
            )
        if column.gaps.any():
            line = source.line(int(np.argmax(column.gaps)))
            raise DataError(f"{line}: target {name!r} must have a value in every row, found none here; take such rows out")
        columns.append(column)
    labels = columns[0].categories or (("false", "true") if source.kinds[source.targets[0]] == "boolean" else ())
    return Read(source, np.stack([column.values for column in columns], axis=1), labels)


def detect(target: Read) -> Task:
    """Words are classes, and so are few whole numbers (at most 20 values, each twice on average); else regression."""
    values = np.unique(target.values)
    if target.labels or _like_classes(target, values):
        return "binary" if len(values) == 2 else "multiclass"
    return "regression"


def _like_classes(target: Read, values: NDArray) -> bool:
    if len(target.names) > 1 or (values != np.floor(values)).any():
        return False
    return len(values) <= min(MANY_CLASSES, len(target.values) // 2)


def _refuse_constant(target: Read) -> None:
    for name, column in zip(target.names, target.values.T, strict=True):
        if (column == column[0]).all():
            raise DataError(
                f"{target.source.name}: target {name!r} must take more than one value, found {target.spell(column[:1])}"
            )


def _regression(target: Read) -> Target:
    source = target.source
    if target.labels:
        row = _first_word(target)
        raise DataError(
            f"{source.line(row)}: target {target.names[0]!r} must hold numbers for regression, found "
            f"{target.labels[int(target.values[row, 0])]!r}; set data.task to auto, binary or multiclass"
        )
    for name, column in zip(target.names, target.values.T, strict=True):
        values = np.unique(column)
        if len(values) == 2:
            raise DataError(
                f"{source.name}: target {name!r} must take more than two values for regression, found only "
                f"{target.spell(values)}; set data.task: binary"
            )
    return Target("regression", target.names, (), target.values)


def _first_word(target: Read) -> int:
    """The first row whose label is no number; 0 if all are."""
    words = np.array([not _is_number(label) for label in target.labels])
    return int(np.argmax(words[target.values[:, 0].astype(np.int64)]))


def _classification(target: Read, task: Task) -> Target:
    source = target.source
    if len(target.names) > 1:
        raise DataError(f"{source.name}: a {task} task must have one target, got {', '.join(target.names)}")
    name, column = target.names[0], target.values[:, 0]
    values, y = np.unique(column, return_inverse=True)
    if not target.labels and len(values) > MANY_CLASSES and not _whole_and_repeated(values, len(column)):
        raise DataError(
            f"{source.name}: target {name!r} looks like a regression target ({len(values)} different numbers in "
            f"{len(column)} rows), got data.task: {task}; set data.task: regression"
        )
    if task == "binary" and len(values) != 2:
        raise DataError(
            f"{source.name}: target {name!r} must have two classes for a binary task, found {len(values)}: {target.spell(values)}"
        )
    if len(values) > MANY_CLASSES and len(values) > len(column) // 2:
        raise DataError(
            f"{source.name}: target {name!r} must have classes with several rows each, found {len(values)} classes in "
            f"{len(column)} rows: {target.spell(values)}; is it an id or a name? choose another data.target"
        )
    return Target(task, target.names, tuple(target.spell([value]) for value in values), y.astype(np.int64))


def _whole_and_repeated(values: NDArray, rows: int) -> bool:
    return bool((values == np.floor(values)).all()) and len(values) <= rows // 2


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def _spell(value: Any) -> str:
    """As people write it: 3, not 3.0."""
    return f"{value:.0f}" if value == int(value) else str(value)
