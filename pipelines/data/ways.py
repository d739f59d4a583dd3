"""Which rows train, validate and test: every way that data.split knows, and what is refused with its line.

By chance (each class shared out evenly, in classification), by group, by time, as a column says, or as the files say. With
folds, the rows that do not test are dealt out once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.data.columns import PARTS, DataError, NDArray, Source
from pipelines.data.duplicates import count_across, equal_rows
from pipelines.data.spellings import near
from pipelines.data.split import deal, deal_groups, deal_in_order, drawn_order
from pipelines.data.tasks import Target
from pipelines.spec import Split
from pipelines.spec.describe import nearest

Rows = dict[str, NDArray]  # part -> row numbers in drawn order, int64
TRAIN, VALID, TEST = range(3)
NAMED = 5  # classes that a message names
SPELLINGS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("valid", "validation", "val", "dev"), VALID),
    "test": TEST,
}


@dataclass(frozen=True)
class Dealt:
    """Row numbers by part: of each fold, or the one division that there is without folds. And how many rows are equal."""

    folds: tuple[Rows, ...]
    duplicates: dict[str, int]


def steering(spec: Split) -> dict[str, str]:
    """Columns that only say who is in which part, which are no inputs, and how they do it.

    A time by which the rows are split is none either: beyond the moments of the training rows a network could but guess.
    """
    ways = {spec.group: "its groups stay in one part (data.split.group)", spec.part: "it says the part (data.split.part)",
            spec.time: "it orders the rows (data.split.time)"}  # fmt: skip
    return {name: how for name, how in ways.items() if name}


def inputs_of(source: Source, spec: Split) -> list[str]:
    """The columns that become inputs. Raises DataError if there are none."""
    names = [name for name in source.inputs if name not in steering(spec)]
    if not names:
        raise DataError(f"{source.name}: there must be a column to predict from, found none beside {', '.join(source.kinds)}")
    return names


def deal_rows(source: Source, target: Target, spec: Split) -> Dealt:
    """Raises DataError for parts without rows, classes that cannot be shared out or learned, and columns that do not serve."""
    check_columns(source, spec)
    used = [name for name, kind in source.kinds.items() if kind != "ignore" or name in (spec.group, spec.time, spec.part)]
    first = equal_rows(source, used)
    order = drawn_order(source.rows, spec.seed)
    strata = _strata(source, target, spec)
    together = first if spec.duplicates == "together" else None
    if strata is not None and source.part is None:
        different = strata if together is None else strata[together == np.arange(len(strata))]
        check_strata(source.name, target.names[0], target.classes, different, (spec.folds or 2) + 1)
    part = _three(source, spec, order, strata, together)
    _refuse_empty(source.name, np.bincount(part, minlength=3), PARTS)
    numbers = [part] if spec.folds is None else _folds(source, spec, order, part, strata, together)
    folds = tuple({name: order[number[order] == place] for place, name in enumerate(PARTS)} for number in numbers)
    for rows in folds:
        if target.classes:
            check_training_classes(source.name, target.classes, target.y[rows["train"]], _by_chance(source, spec))
    several = 0 if first is None else int((first != np.arange(len(first))).sum())
    across = 0 if first is None else count_across(first, part)
    return Dealt(folds, {"rows": several, "across": across})


def check_columns(source: Source, spec: Split) -> None:
    """Raises DataError for a column of data.split that there is not, or that is the target."""
    for key in ("group", "time", "part"):
        name = getattr(spec, key)
        if name and name not in source.kinds:
            hint = nearest(name, list(source.kinds))
            raise DataError(f"{source.name}: data.split.{key} must name a column, found none of the name {name!r}; {hint}")
        if name and name in source.targets:
            raise DataError(f"{source.name}: data.split.{key} must name another column than the target, got {name!r}")


def _strata(source: Source, target: Target, spec: Split) -> NDArray | None:
    """Class numbers to be shared out evenly; None where they are not."""
    if spec.stratify is True and not target.classes:
        raise DataError(f"{source.name}: data.split.stratify must be auto or false for a regression target, got true")
    free = not (spec.group or spec.time or spec.part)
    return target.y if free and target.classes and spec.stratify is not False else None


def _by_chance(source: Source, spec: Split) -> bool:
    return source.part is None and not (spec.group or spec.time or spec.part)


def _three(source: Source, spec: Split, order: NDArray, strata: NDArray | None, together: NDArray | None) -> NDArray:
    """The part of each row, (n,)."""
    fractions = (spec.train, spec.valid, spec.test)
    if spec.part:
        return parts_of_column(source, spec.part)
    if source.part is not None:
        return _open_rows(source.part, order, fractions[:2], strata, together)
    if spec.time:
        return deal_in_order(_times(source, spec.time), fractions)
    if spec.group:
        return deal_groups(_groups(source, spec.group), fractions, spec.seed)
    part = np.empty(source.rows, dtype=np.int64)
    part[order] = deal(order, fractions, strata, together)
    return part


def _open_rows(
    given: NDArray, order: NDArray, fractions: Sequence[float], strata: NDArray | None, together: NDArray | None
) -> NDArray:
    """What the files say; rows that they leave open are dealt to training and validation."""
    part = given.astype(np.int64)
    left = order[part[order] < 0]
    if len(left):
        part[left] = deal(left, fractions, strata, _among(together, left))
    return part


def _folds(
    source: Source, spec: Split, order: NDArray, part: NDArray, strata: NDArray | None, together: NDArray | None
) -> list[NDArray]:
    """The part of each row in each fold: of the rows that do not test, a fold's own validate and the others train."""
    assert spec.folds is not None
    rest, even = order[part[order] != TEST], [1.0] * spec.folds
    fold = np.full(len(part), -1)
    if spec.group:
        groups = _groups(source, spec.group)[rest]
        fold[rest] = deal_groups(np.unique(groups, return_inverse=True)[1], even, spec.seed)
    else:
        fold[rest] = deal(rest, even, strata, _among(together, rest))
    _refuse_empty(source.name, np.bincount(fold[rest], minlength=spec.folds), [f"fold {i + 1}" for i in range(spec.folds)])
    return [np.where(fold < 0, TEST, np.where(fold == number, VALID, TRAIN)) for number in range(spec.folds)]


def _among(first: NDArray | None, rows: NDArray) -> NDArray | None:
    """`first` where some rows alone are dealt: the first row that each is equal to may not be among them."""
    if first is None:
        return None
    rows = np.sort(rows)
    _, place, inverse = np.unique(first[rows], return_index=True, return_inverse=True)
    among = first.copy()
    among[rows] = rows[place[inverse]]
    return among


def parts_of_column(source: Source, name: str) -> NDArray:
    """The part that a column says, (n,)."""
    column = source.fetch(name)
    if not column.categories and source.kinds[name] != "ignore":
        kind = source.kinds[name]
        raise DataError(f"{source.name}: column {name!r} must say train, valid or test (data.split.part), found {kind}")
    known = np.array([*(SPELLINGS.get(text.strip().lower(), -1) for text in column.categories), -1])
    part = known[column.values]
    if (part < 0).any():
        row = int(np.argmax(part < 0))
        place = column.values[row]
        found = "no value" if place < 0 else repr(column.categories[place])
        raise DataError(f"{source.line(row)}: column {name!r} must say train, valid or test (data.split.part), found {found}")
    return part


def _times(source: Source, name: str) -> NDArray:
    kind = source.kinds[name]
    if kind not in ("numeric", "datetime"):
        others = [other for other, kind in source.kinds.items() if kind == "datetime" and other not in source.targets]
        way_out = f"columns of dates are: {', '.join(others)}" if others else "give the dates as 2024-05-31, or split otherwise"
        raise DataError(
            f"{source.name}: data.split.time must name a column of dates or numbers, found {name!r} to be "
            f"{'ignored' if kind == 'ignore' else kind}; {way_out}"
        )
    return _complete(source, name, "time")


def _groups(source: Source, name: str) -> NDArray:
    """The group of each row, (n,), from 0."""
    return np.unique(_complete(source, name, "group"), return_inverse=True)[1]


def _complete(source: Source, name: str, key: str) -> NDArray:
    column = source.fetch(name)
    if column.gaps.any():
        line = source.line(int(np.argmax(column.gaps)))
        raise DataError(f"{line}: column {name!r} must have a value in every row (data.split.{key}), found none here")
    return column.values


def _refuse_empty(source: str, counts: NDArray, names: Sequence[str]) -> None:
    if not counts.all():
        found = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
        raise DataError(f"{source}: each of the {len(names)} parts needs a row, got {counts.sum()} in all: {found}")


def check_strata(source: str, target: str, classes: Sequence[str], y: NDArray, parts: int) -> None:
    """Raises DataError if a class has too few rows for one in each part. y: the classes of different rows."""
    counts = dict(zip(classes, np.bincount(y, minlength=len(classes)).tolist(), strict=True))
    short = [name for name, count in counts.items() if count < parts]
    if short:
        each = "one a part" if parts == len(PARTS) else "one a fold and one to test"
        told = ", class ".join(f"{name!r} has {counts[name]}" for name in short[:NAMED])
        more = f", and {len(short) - NAMED} more classes have too few" if len(short) > NAMED else ""
        raise DataError(
            f"{source}: each class must have at least {parts} different rows for a stratified split, {each}, but class "
            f"{told}{more}; {_other_spelling(target, short, counts)}add rows, join rare classes with data.spellings, or set "
            "data.split.stratify: false"
        )


def _other_spelling(target: str, short: Sequence[str], counts: dict[str, int]) -> str:
    """What to set if a rare class is another spelling of a larger one."""
    meant = {name: other for name in short[:NAMED] if (other := near(name, counts))}
    if not meant:
        return ""
    as_is = " and ".join(f"{name!r} is {other!r}" for name, other in meant.items())
    inner = ", ".join(f"{name}: {other}" for name, other in meant.items())
    return f"if {as_is}, set data.spellings: {{{target}: {{{inner}}}}}; else "


def check_training_classes(source: str, classes: Sequence[str], y: NDArray, by_chance: bool) -> None:
    """Raises DataError if a class has no training row, so that nothing could be learned about it."""
    counts = np.bincount(y, minlength=len(classes))
    absent = [repr(name) for name, count in zip(classes, counts, strict=True) if not count]
    if absent:
        by_seed = "set data.split.stratify: true, or choose another data.split.seed"
        way_out = by_seed if by_chance else "split the rows otherwise (data.split), or take the class out"
        raise DataError(
            f"{source}: every class must have training rows, but class {', class '.join(absent[:5])} has none; {way_out}"
        )
