"""What is to be predicted: which task a target stands for, and its values as the loss takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from backends.spec import Task
from pipelines.data.table import DataError, NDArray, Table

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


def find_target(table: Table, task: Task | Literal["auto"]) -> Target:
    """The target under the task that the spec states, or under the one it looks like.

    Raises DataError for a target that is constant, or does not suit the task.
    """
    _refuse_constant(table)
    task = detect(table) if task == "auto" else task
    if task == "regression":
        return _regression(table)
    return _classification(table, task)


def detect(table: Table) -> Task:
    """Words are classes, and so are few whole numbers (at most 20 values, each twice on average); else regression."""
    values = np.unique(table.targets)
    if table.worded or _like_classes(table, values):
        return "binary" if len(values) == 2 else "multiclass"
    return "regression"


def _like_classes(table: Table, values: NDArray) -> bool:
    if len(table.names) > 1 or (values != np.floor(values)).any():
        return False
    return len(values) <= min(MANY_CLASSES, len(table.targets) // 2)


def _refuse_constant(table: Table) -> None:
    for place, name in enumerate(table.names):
        column = table.targets[:, place]
        if (column == column[0]).all():
            raise DataError(f"{table.source}: target {name!r} must take more than one value, found {_spell(column[:1])}")


def _regression(table: Table) -> Target:
    if table.worded:
        number = int(np.argmin([_is_number(cell) for cell in table.targets[:, 0]]))
        raise DataError(
            f"{table.source}: target {table.names[0]!r} must hold numbers for regression, found "
            f"{str(table.targets[number, 0])!r} in row {number + 1}; set data.task to auto, binary or multiclass"
        )
    for place, name in enumerate(table.names):
        values = np.unique(table.targets[:, place])
        if len(values) == 2:
            raise DataError(
                f"{table.source}: target {name!r} must take more than two values for regression, found only "
                f"{_spell(values)}; set data.task: binary"
            )
    return Target("regression", table.names, (), table.targets.astype(np.float64))


def _classification(table: Table, task: Task) -> Target:
    if len(table.names) > 1:
        raise DataError(f"{table.source}: a {task} task must have one target, got {', '.join(table.names)}")
    name, column = table.names[0], table.targets[:, 0]
    values, y = np.unique(column, return_inverse=True)
    if not table.worded and len(values) > MANY_CLASSES and not _whole_and_repeated(values, len(column)):
        raise DataError(
            f"{table.source}: target {name!r} looks like a regression target ({len(values)} different numbers in "
            f"{len(column)} rows), got data.task: {task}; set data.task: regression"
        )
    if task == "binary" and len(values) != 2:
        raise DataError(
            f"{table.source}: target {name!r} must have two classes for a binary task, found {len(values)}: {_spell(values)}"
        )
    return Target(task, table.names, tuple(_spell([value]) for value in values), y.astype(np.int64))


def _whole_and_repeated(values: NDArray, rows: int) -> bool:
    return bool((values == np.floor(values)).all()) and len(values) <= rows // 2


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _spell(values: NDArray | list[Any]) -> str:
    """Values as people write them: 3, not 3.0; the first five of many."""
    spelled = [f"{v:.0f}" if not isinstance(v, str) and v == int(v) else str(v) for v in values[:5]]
    return ", ".join(spelled) + (", ..." if len(values) > 5 else "")
