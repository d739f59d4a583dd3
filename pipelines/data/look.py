"""What the rows look like, before anything is trained on them: kinds, gaps, classes, duplicates, and columns that know too much.

    found = look(block, base)

One column at a time is in memory. The rules of thumb stand in suspect.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.columns import Column, DataError, NDArray, Source
from pipelines.data.prepare import check_size
from pipelines.data.preprocess import LIMIT, CellError, fit
from pipelines.data.read import Survey, survey
from pipelines.data.split import count_duplicates, equal_rows, inputs_of, split_columns, split_rows
from pipelines.data.suspect import Answer, Suspicion, suspect, suspect_spellings
from pipelines.data.tasks import Target, find_target
from pipelines.spec.blocks import DataSpec, Kind

BARS = 24  # of a histogram of numbers
MOST_BARS = 12  # of a histogram of categories; the others share one
FREQUENT = 5


@dataclass(frozen=True)
class ColumnLook:
    """One column. `least`, `median` and `greatest` are None but for numbers and dates (dates: days since 1970-01-01)."""

    name: str
    kind: Kind
    stated: bool  # by data.columns; else as it looks
    note: str  # why it is no input though data.columns does not say so; "" for most
    problem: str  # what `read` would refuse it with; "" if nothing
    odd: tuple[str, ...]  # the cells that break its kind, the most frequent first, where that is the problem
    missing: int
    distinct: int
    least: float | None
    median: float | None
    greatest: float | None
    frequent: tuple[tuple[str, int], ...]  # category or value, rows; the most frequent first
    example: str  # its first value
    histogram: tuple[tuple[str, int], ...]  # what a bar stands for, rows


@dataclass(frozen=True)
class Look:
    """All of it; `as_dict` is what --json prints."""

    source: str
    rows: int
    columns: tuple[ColumnLook, ...]  # targets too, in the order of the file
    targets: tuple[str, ...]  # those that are columns of the file
    task: str  # regression, binary, multiclass; "" without a target that can be predicted
    classes: dict[str, int]  # rows of each; empty for regression
    duplicates: int  # rows that repeat an earlier one in every column that is not ignored
    suspicions: tuple[Suspicion, ...]
    problems: tuple[str, ...]  # what `read` or `prepare` would refuse
    refused: str  # the one of them that is about the target, or a column that the spec names; "" if none is

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and words."""
        return asdict(self)


def look(block: DataSpec, base: Path | None = None) -> Look:
    """Look at all rows. A column or target that `read` would refuse is told of in `problems`.

    `block` may lack a target (`DataSpec.model_construct`). Raises DataError where there is no table to look at.
    """
    found = survey(block, base)
    source = found.source
    untidy = next((found.problems[name] for name in source.targets if name in found.problems), "")
    # Of a target that is not what its kind says, the task would be a guess, and what is wrong with that misleads.
    target, problems = (None, []) if untidy else _target(source, block)
    refused = found.problems.get("") or untidy or "".join(problems)
    classes, answers = _classes(target), _answers(target)
    inputs = [name for name in source.inputs if name not in split_columns(block.split)]
    columns: list[ColumnLook] = []
    suspicions: list[Suspicion] = [*suspect_spellings(source.targets[0], classes)] if classes else []
    for name, kind in source.kinds.items():
        try:
            column = source.fetch(name)
        except DataError as error:
            problems.append(str(error))
            continue
        columns.append(_column(found, name, column, split_columns(block.split).get(name, "")))
        if name in inputs and name not in found.problems:  # what is untidy is looked at as text, and tells nothing yet
            suspicions += suspect(name, kind, column, answers, block.categories.most)
            problems += _unfit(found, block, columns[-1], column)
    duplicates, unsplit = _dealt(found, block, target)
    return Look(
        source=source.name,
        rows=source.rows,
        columns=tuple(columns),
        targets=source.targets,
        task=target.task if target else "",
        classes=classes,
        duplicates=duplicates,
        suspicions=tuple(suspicions),
        problems=(*found.problems.values(), *problems, *unsplit),
        refused=refused,
    )


def _target(source: Source, block: DataSpec) -> tuple[Target | None, list[str]]:
    """What is predicted, and what is wrong with it."""
    if not source.targets:
        return None, []
    try:
        target = find_target(source, block.task)
        if target.task == "regression":
            check_size(source, target, target.y)
    except DataError as error:
        return None, [str(error)]
    return target, []


def _classes(target: Target | None) -> dict[str, int]:
    """Rows of each; empty for regression."""
    if target is None or not target.classes:
        return {}
    return dict(zip(target.classes, np.bincount(target.y, minlength=len(target.classes)).tolist(), strict=True))


def _answers(target: Target | None) -> list[Answer]:
    """What columns are tested against."""
    if target is None:
        return []
    if target.classes:
        return [Answer(target.names[0], target.y, classes=True)]
    return [Answer(name, target.y[:, place], classes=False) for place, name in enumerate(target.names)]


def _dealt(found: Survey, block: DataSpec, target: Target | None) -> tuple[int, list[str]]:
    """(rows that repeat an earlier one, why they cannot be dealt into parts): what `split` would say."""
    source, problems = found.source, list[str]()
    if target is not None and not {"", *split_columns(block.split)} & {*found.problems}:
        try:
            inputs_of(source, block.split)
            return split_rows(source, target, block.split).duplicates["rows"], []
        except DataError as error:
            problems.append(str(error))
    first = equal_rows(source, [name for name, kind in source.kinds.items() if kind != "ignore"])
    return count_duplicates(first, np.zeros(source.rows))["rows"], problems


def _unfit(found: Survey, block: DataSpec, told: ColumnLook, column: Column) -> Iterator[str]:
    """What becomes of no number for a network: values beyond float32, and gaps where the spec wants none."""
    if told.problem:
        return
    beyond = told.least is not None and told.greatest is not None and max(-told.least, told.greatest) > LIMIT
    numbers = told.kind in ("numeric", "datetime")
    if beyond or (told.missing and (block.missing.numeric if numbers else block.missing.categorical) == "refuse"):
        try:
            for _ in fit(told.name, told.kind, column, block).encoder.encode(column):
                pass
        except CellError as error:
            yield f"{found.source.line(error.place)}: {error}"


def _column(found: Survey, name: str, column: Column, steers: str) -> ColumnLook:
    kind = found.source.kinds[name]
    worded = bool(column.categories) or column.values.dtype.kind != "f"
    present = column.values[~column.gaps]
    values, counts = _different(present, len(column.categories) if worded else None)
    spelled = [*column.categories] if worded else None
    often = np.argsort(-counts, kind="stable")
    numbers = not worded and kind != "boolean" and bool(len(values))

    def spell(place: int) -> str:
        return spelled[place] if spelled is not None else shown(kind, float(values[place]))

    repeated = not numbers or bool((counts > 1).any())
    frequent = tuple((spell(place), int(counts[place])) for place in often[:FREQUENT].tolist() if counts[place] and repeated)
    return ColumnLook(
        name=name,
        kind=found.meant.get(name, kind),
        stated=name in found.stated,
        note=found.source.notes.get(name, "") or (f"no input: {steers}" if steers else ""),
        problem=found.problems.get(name, ""),
        odd=found.odd.get(name, ()),
        missing=int(column.gaps.sum()),
        distinct=int(np.count_nonzero(counts)),
        least=float(values[0]) if numbers else None,
        median=_middle(values, counts) if numbers else None,
        greatest=float(values[-1]) if numbers else None,
        frequent=frequent,
        example=(column.categories[int(present[0])] if worded else shown(kind, float(present[0]))) if len(present) else "",
        histogram=tuple(_bars(kind, values, counts) if numbers else _most_frequent(spell, counts, often)),
    )


def _different(present: NDArray, categories: int | None) -> tuple[NDArray, NDArray]:
    """(values in order, rows of each)."""
    if categories is None:
        ordered = np.sort(present)
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(ordered) else np.empty(0, np.int64)
        return ordered[starts], np.diff(np.append(starts, len(ordered)))
    return np.arange(categories), np.bincount(present, minlength=categories)


def _middle(values: NDArray, counts: NDArray) -> float:
    """The median."""
    up_to, rows = np.cumsum(counts), int(counts.sum())
    low, high = (float(values[np.searchsorted(up_to, place, side="right")]) for place in ((rows - 1) // 2, rows // 2))
    return low / 2 + high / 2


def _bars(kind: Kind, values: NDArray, counts: NDArray) -> Iterator[tuple[str, int]]:
    """Bars of equal width from the least to the greatest value; one a value where there are few whole numbers."""
    if len(values) <= BARS and (values == np.floor(values)).all():
        yield from ((shown(kind, float(value)), int(count)) for value, count in zip(values, counts, strict=True))
        return
    low, high = float(values[0]), float(values[-1])
    share = np.linspace(0, 1, BARS + 1)
    edges = low * (1 - share) + high * share  # high - low may be beyond float64
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, BARS - 1)
    for number, rows in enumerate(np.bincount(place, weights=counts, minlength=BARS).tolist()):
        yield f"{shown(kind, float(edges[number]))} to {shown(kind, float(edges[number + 1]))}", int(rows)


def _most_frequent(spell: Any, counts: NDArray, often: NDArray) -> Iterator[tuple[str, int]]:
    for place in often[:MOST_BARS].tolist():
        if counts[place]:
            yield spell(place), int(counts[place])
    others = int(counts[often[MOST_BARS:]].sum())
    if others:
        yield f"{np.count_nonzero(counts[often[MOST_BARS:]])} others", others


def shown(kind: Kind, value: float) -> str:
    """A value as people write it: a date, yes or no, 3 rather than 3.0."""
    if kind == "boolean":
        return "true" if value else "false"
    if kind == "datetime":
        try:
            moment = np.datetime64(round(value * 86_400_000), "ms")
            return str(np.datetime_as_string(moment, unit="D" if value == np.floor(value) else "s"))
        except (OverflowError, ValueError):
            return f"{value:.6g}"
    return f"{value:.0f}" if value == np.floor(value) and abs(value) < 1e15 else f"{value:.6g}"
