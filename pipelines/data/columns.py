"""What a reader hands on: named columns, one at a time in memory; and the target: the task, and y for the loss."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from backends.spec import Task
from pipelines.spec.blocks import Dates, Kind, Numbers

MICROSECONDS_A_DAY = 86_400_000_000
PARTS = ("train", "valid", "test")
NDArray = np.ndarray[Any, np.dtype[Any]]


class DataError(ValueError):
    """Data that cannot be used as the spec says; with file, row and column."""

    exit_code = 2


def listed(source: str, problems: Sequence[str]) -> str:
    """Several faults as one message."""
    if len(problems) == 1:
        return problems[0]
    lines = "\n".join(problems)
    return f"{source}: {len(problems)} errors in the data:\n{lines}"


@dataclass(frozen=True)
class Column:
    """Values of one column, (n,).

    numeric: float64. boolean: float64, 0 and 1. datetime: float64, days since 1970-01-01 UTC. Of these NaN is a missing value,
    and no other value is NaN or infinite. categorical: int32 places in `categories`, which are sorted; -1 is a missing value.
    """

    values: NDArray
    categories: tuple[str, ...] = ()

    @property
    def gaps(self) -> NDArray:
        """Where there is no value, (n,)."""
        return np.isnan(self.values) if self.values.dtype.kind == "f" else self.values < 0

    @property
    def labels(self) -> NDArray:
        """The category of each row, (n,); "" for a missing value."""
        return np.array([*self.categories, ""])[self.values]

    def of(self, rows: NDArray) -> Column:
        """Of some rows, by their numbers."""
        return Column(self.values[rows], self.categories)


@dataclass(frozen=True)
class InferredType:
    """What a column holds. `note`: why it is ignored; `problem`: what must hold, and `row` breaks first."""

    kind: Kind
    note: str = ""
    problem: str = ""
    row: int | None = None
    odd: tuple[str, ...] = ()  # the texts that break it, the most frequent first
    order: str = ""  # of days and months, a key of dates.PLAIN
    numbers: Numbers | None = None  # how they are written, where not as 1234.5
    dates: Dates | None = None  # how they are written, if not plainly, and their parts


@dataclass(frozen=True)
class Source:
    """Rows as they were read, with what their columns hold: as the spec says, else as they look.

    A column that `read` would refuse is text, and named in `problems`.

    `part` (rows,) int8 is the place of each row's part in PARTS where the data come split; -1 leaves it open. `line` names a row,
    counted from 0.
    """

    name: str
    rows: int
    kinds: Mapping[str, Kind]  # of every column, targets too, in the order of the file
    targets: tuple[str, ...]
    fetch: Callable[[str], Column]  # also of an ignored column, as text
    line: Callable[[int], str]
    part: NDArray | None = None
    notes: Mapping[str, str] = field(default_factory=dict)  # column -> why it is ignored
    orders: Mapping[str, str] = field(default_factory=dict)  # column of dates -> a key of dates.PLAIN
    numbers: Mapping[str, Numbers] = field(default_factory=dict)  # where not as 1234.5
    dates: Mapping[str, Dates] = field(default_factory=dict)  # how they are written, and their parts
    places: NDArray | None = None  # (rows,) numbers of the rows in the file, where some are left out
    left_out: Mapping[str, int] = field(default_factory=dict)  # why rows are left out -> how many
    problems: Mapping[str, str] = field(default_factory=dict)  # "": of the names in the spec
    refused: Mapping[str, InferredType] = field(default_factory=dict)  # with the kind that their cells break
    stated: Container[str] = ()  # columns whose kind data.columns gives
    suspicion: str = ""  # of the header and quotes
    guessed: bool = False  # the first line was taken for a row
    texts: Callable[[str], Column] | None = None  # what cells say, where they are texts

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that may become inputs."""
        return tuple(name for name, kind in self.kinds.items() if name not in self.targets and kind != "ignore")

    def numbers_of(self, rows: NDArray) -> NDArray:
        """Of some rows, those in the file."""
        return rows if self.places is None else self.places[rows]

    def without(self, reasons: Mapping[str, NDArray]) -> Source:
        """The rows for which no reason holds, (rows,) a reason."""
        reasons = {why: mask for why, mask in reasons.items() if mask.any()}
        if not reasons:
            return self
        kept = np.flatnonzero(~np.any(list(reasons.values()), axis=0))
        fetch, line, texts = self.fetch, self.line, self.texts
        return replace(
            self,
            rows=len(kept),
            fetch=lambda name: fetch(name).of(kept),
            texts=texts and (lambda name: texts(name).of(kept)),
            line=lambda row: line(int(kept[row])),
            part=None if self.part is None else self.part[kept],
            places=kept,
            left_out={why: int(mask.sum()) for why, mask in reasons.items()},
        )

    def __post_init__(self) -> None:
        if not self.inputs:
            raise DataError(f"{self.name}: there must be a column beside the target that is not ignored, found none")
        if not self.rows:
            raise DataError(f"{self.name}: the file has no rows")


# -- what is to be predicted --

MANY_CLASSES = 20  # whole numbers with more values than this are taken for a regression target


@dataclass(frozen=True)
class Target:
    """The task, and y as `backends.tasks.targets` takes it. `classes` are sorted, but for `positive`; none for regression."""

    task: Task
    names: tuple[str, ...]
    classes: tuple[str, ...]
    y: NDArray

    @property
    def outputs(self) -> int:
        """Outputs of a network for it."""
        return {"regression": len(self.names), "binary": 1, "multiclass": len(self.classes)}[self.task]

    def counts(self, rows: NDArray | slice = slice(None)) -> dict[str, int]:
        """Of each class among some rows, by their numbers; empty for regression."""
        if not self.classes:
            return {}
        return dict(zip(self.classes, np.bincount(self.y[rows], minlength=len(self.classes)).tolist(), strict=True))


def find_target(source: Source, task: Task | Literal["auto"], positive: str | None = None) -> Target:
    """The target, by the task that the spec states or that it looks like; class `positive` is last.

    Raises DataError for a target that has gaps, is constant, or does not suit the task.
    """
    target = TargetColumns(source)
    stated = task != "auto"
    task = target.task if task == "auto" else task
    found = target.regression(stated) if task == "regression" else target.classification(task)
    if positive is None:
        return found
    if len(found.classes) != 2 or positive not in found.classes:
        there = ", ".join(found.classes[:5]) or "numbers"
        must = "data.positive must be one of two classes"
        raise DataError(f"{source.name}: {must}, got {positive!r} for {there}")
    turned = positive == found.classes[0]
    return replace(found, classes=found.classes[::-1], y=1 - found.y) if turned else found


class TargetColumns:
    """Target columns as they were read: `values` (n, m) are numbers, or, with `labels`, places in them.

    Raises DataError for missing values, constants, and kinds that cannot be predicted.
    """

    def __init__(self, source: Source) -> None:
        self.source, self.name = source, source.name
        columns = [self._read(name) for name in source.targets]
        truth = ("false", "true") if source.kinds[source.targets[0]] == "boolean" else ()
        self.labels = columns[0].categories or truth
        self.values = np.stack([column.values for column in columns], axis=1)
        for name, column in zip(source.targets, self.values.T, strict=True):
            if (column == column[0]).all():
                found = self.spell(column[:1])
                raise DataError(f"{self.name}: target {name!r} must take more than one value, found {found}")

    def _read(self, name: str) -> Any:
        source, kind = self.source, self.source.kinds[name]
        if kind in ("datetime", "ignore"):
            raise DataError(
                f"{self.name}: target {name!r} must be numeric, categorical or boolean, found {kind}; "
                f"set data.columns: {{{name}: ...}} to numeric or categorical, or choose another target"
            )
        column = source.fetch(name)
        if kind != "numeric" and len(source.targets) > 1:
            others = ", ".join(source.targets)
            raise DataError(f"{self.name}: several targets must be numbers, found {name!r} to be {kind} among {others}")
        if column.gaps.any():
            line, more = source.line(int(np.argmax(column.gaps))), int(column.gaps.sum()) - 1
            rest = f" (and in {more} more rows)" if more else ""
            must = f"target {name!r} must have a value in every row, found none here{rest}"
            raise DataError(f"{line}: {must}; to leave such rows out set data.missing.target: drop")
        return column

    @property
    def task(self) -> Task:
        """Words are classes, and so are few whole numbers (at most 20, each twice); else regression."""
        values = np.unique(self.values)
        few = len(values) <= min(MANY_CLASSES, len(self.values) // 2)
        one_of_few = self.values.shape[1] == 1 and few and (values == np.floor(values)).all()
        if self.labels or one_of_few:
            return "binary" if len(values) == 2 else "multiclass"
        return "regression"

    def spell(self, values: NDArray | Sequence[Any]) -> str:
        """The first five of many, as people write them: 3, not 3.0."""
        spelled = [self._spell(value) for value in values[:5]]
        return ", ".join(spelled) + (", ..." if len(values) > 5 else "")

    def _spell(self, value: Any) -> str:
        if self.labels:
            return self.labels[int(value)]
        return f"{value:.0f}" if value == int(value) else str(value)

    def regression(self, stated: bool = True) -> Target:
        """Numbers. Raises DataError for words, and for two values, unless `stated`."""
        names = self.source.targets
        if self.labels:
            words = np.array([not label.lstrip("+-").replace(".", "", 1).isdigit() for label in self.labels])
            row = int(np.argmax(words[self.values[:, 0].astype(np.int64)]))  # the first
            raise DataError(
                f"{self.source.line(row)}: target {names[0]!r} must hold numbers for regression, found "
                f"{self._spell(self.values[row, 0])!r}; set data.task to auto, binary or multiclass"
            )
        for name, column in zip(names, self.values.T, strict=True):
            values = np.unique(column)
            if len(values) == 2 and not stated:
                way_out = "set data.task: binary"
                if len(names) > 1:
                    way_out = "predict classes one at a time: name one data.target, and have data.columns ignore the others"
                found = f"found only {self.spell(values)}; {way_out}"
                raise DataError(f"{self.name}: target {name!r} must take more than two values for regression, {found}")
        return Target("regression", names, (), self.values)

    def classification(self, task: Task) -> Target:
        """Classes, from 0. Raises DataError for what is none of this task."""
        names, rows = self.source.targets, len(self.values)
        if len(names) > 1:
            raise DataError(f"{self.name}: a {task} task must have one target, got {', '.join(names)}")
        values, y = np.unique(self.values[:, 0], return_inverse=True)
        many, repeated = len(values) > MANY_CLASSES, len(values) <= rows // 2
        subject = f"{self.name}: target {names[0]!r}"
        if not self.labels and many and not (repeated and (values == np.floor(values)).all()):
            raise DataError(
                f"{subject} looks like a regression target ({len(values)} different numbers in {rows} rows), got data.task: "
                f"{task}; set data.task: regression"
            )
        if task == "binary" and len(values) != 2:
            raise DataError(f"{subject} must have two classes for a binary task, found {len(values)}: {self.spell(values)}")
        if many and not repeated:
            raise DataError(
                f"{subject} must have classes with several rows each, found {len(values)} classes in {rows} rows: "
                f"{self.spell(values)}; is it an id or a name? choose another data.target"
            )
        return Target(task, names, tuple(self._spell(value) for value in values), y.astype(np.int64))
