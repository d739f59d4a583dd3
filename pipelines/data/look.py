"""What the rows look like: kinds, gaps, classes, duplicates, and columns that know too much.

A suspicion is a question to a person; nothing is left out because of one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipelines.data.cells import as_stated
from pipelines.data.columns import Column, DataError, NDArray, Source, Target, find_target, listed
from pipelines.data.parts import check_size
from pipelines.data.preprocess import LIMIT, CellError, fit
from pipelines.data.read import survey
from pipelines.data.split import count_duplicates, equal_rows, inputs_of, label_key, no_inputs, row_weights, split_rows
from pipelines.spec.blocks import DataSpec, Dates, Kind, Numbers
from pipelines.spec.file import flow, scalar

BARS = 24  # of a histogram of numbers
MOST_BARS = 12  # of a histogram of categories; the others share one
FREQUENT = 5
RANKS = 0.999  # rank correlation with a numeric target; measurements seldom have it
PURITY = 0.995  # rows whose class a rule of one column tells
BETTER = 0.1  # of the errors of naming the most frequent class: 1 % of fraud is no leak
FEW = 50  # values of a rule
EACH = 5  # rows a value at least: what stands once or twice tells its own class
RARE = 0.1  # of the rows with a category that has no input of its own
LEAST_ROWS = 20  # below, such things happen by chance
ROWS = 100_000  # of a larger set so many are looked at, evenly spaced
SHOWN = 5  # spellings
FEW_CLASSES = 5  # whole numbers of a target that are asked about no more
MARKS = 30  # of them may be marks, if each comes five times on average
SENTINEL_VALUES = 10  # of a column with no more, each is a category rather
SENTINEL_ROWS = 3  # that hold such a number, at least
NO_DATES = ("1899-12-30", "1900-01-01", "1970-01-01", "2099-12-31", "9999-12-31")
DENSE = 2  # whole numbers, all different, on twice as wide a range: they number the rows


@dataclass(frozen=True)
class ColumnLook:
    """One column. `least`, `median` and `greatest` are of numbers and dates (days since 1970-01-01)."""

    name: str
    kind: Kind
    stated: bool  # by data.columns; else as it looks
    note: str  # why it is no input though data.columns does not say so; "" for most
    problem: str  # what `read` would refuse it with; "" if nothing
    odd: tuple[str, ...]  # the cells that break its kind, the most frequent first
    missing: int
    distinct: int
    least: float | None
    median: float | None
    greatest: float | None
    frequent: tuple[tuple[str, int], ...]  # category or value, rows; the most frequent first
    example: str  # its first value
    histogram: tuple[tuple[str, int], ...]  # what a bar stands for, rows
    written: str = ""  # as data.numbers or data.dates say it; "" for 1234.5 and 2024-05-31


@dataclass(frozen=True)
class Suspicion:
    """A question about a column or the file; see docs/data.md."""

    column: str
    kind: Literal["leak", "order", "constant", "many", "spelling", "written", "task", "sentinel"]
    why: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.column}: {self.why}"


@dataclass(frozen=True)
class Look:
    """All of it, as --json prints it."""

    source: str
    rows: int
    columns: tuple[ColumnLook, ...]  # targets too, in the order of the file
    targets: tuple[str, ...]  # those that are columns of the file
    task: str  # regression, binary, multiclass; "" without a target that can be predicted
    classes: dict[str, int]  # rows of each; empty for regression
    duplicates: int  # rows that repeat an earlier one in every column that is not ignored
    suspicions: tuple[Suspicion, ...]
    problems: tuple[str, ...]  # what `read` or `prepare` would refuse
    refused: str  # the one about the target, or a name in the spec; "" if none is
    rows_left_out: Mapping[str, int]  # why -> how many
    guessed: bool  # the first line was taken for a row

    def written(self, key: str) -> dict[str, str]:
        """column -> what data.numbers, or data.dates, says of it, as YAML."""
        kind = "numeric" if key == "numbers" else "datetime"
        return {one.name: one.written for one in self.columns if one.written and one.kind == kind}

    @property
    def readings(self) -> Iterator[str]:
        """How cells are read that are not written plainly, a line each."""
        for key in ("numbers", "dates"):
            for name, how in self.written(key).items():
                yield f"{key}: {name} is read by data.{key}: {{{scalar(name)}: {how}}}"


def look(block: DataSpec, base: Path | None = None) -> Look:
    """Look at all rows. A column or target that `read` would refuse is named in `problems`.

    `block` may lack a target (`DataSpec.model_construct`). Raises DataError where there is no table to look at.
    """
    source = survey(block, base)
    untidy = next((source.problems[name] for name in source.targets if name in source.problems), "")
    target, problems = (None, []) if untidy else _target(source, block)
    refused = source.problems.get("") or untidy or "".join(problems)
    classes = target.counts() if target else {}
    left_out = no_inputs(block)
    columns: list[ColumnLook] = []
    suspicions = [Suspicion("the file", "written", source.suspicion)] if source.suspicion else []
    if target:
        suspicions += [*suspect_task(source, target, block), *suspect_spellings(source.targets[0], classes)]
    for name, kind in source.kinds.items():
        try:
            column = source.fetch(name)
        except DataError as error:
            problems.append(str(error))
            continue
        columns.append(_column(source, name, column, left_out.get(name, ""), block.format.decimal))
        # What is untidy is looked at as text, and tells nothing yet.
        if name in source.inputs and name not in left_out and name not in source.problems:
            suspicions += suspect(name, kind, column, target, block.categories.most)
            problems += _unfit(source, block, columns[-1], column)
        if kind in ("numeric", "datetime") and name not in left_out:
            suspicions += suspect_sentinel(source, block, name, column)
    duplicates, unsplit = _split(source, block, target)
    return Look(
        source=source.name,
        rows=source.rows,
        columns=tuple(columns),
        targets=source.targets,
        task=target.task if target else "",
        classes=classes,
        duplicates=duplicates,
        suspicions=tuple(suspicions),
        problems=(*source.problems.values(), *problems, *unsplit),
        refused=refused,
        rows_left_out=source.left_out,
        guessed=source.guessed,
    )


def _target(source: Source, block: DataSpec) -> tuple[Target | None, list[str]]:
    """What is predicted, and what is wrong with it."""
    try:
        target = find_target(source, block.task, block.positive) if source.targets else None
        if target and target.task == "regression":
            check_size(source, target, target.y)
    except DataError as error:
        return None, [str(error)]
    return target, []


def _split(source: Source, block: DataSpec, target: Target | None) -> tuple[int, list[str]]:
    """(rows that repeat an earlier one, what `split` would refuse)."""
    problems, untidy, duplicates = list[str](), {*source.problems}, None
    parts = [np.arange(source.rows)]
    try:
        if target is not None and not {"", *no_inputs(block)} & untidy:
            inputs_of(source, block)
            split = split_rows(source, target, block.split, block.weight)
            duplicates, parts = split.duplicates, [fold["train"] for fold in split.folds]
    except DataError as error:
        problems.append(str(error))
    try:
        for part in parts if block.weight and not {"", block.weight} & untidy else ():
            row_weights(source, block, part)
    except DataError as error:
        problems.append(str(error))
    if duplicates is None:
        first = equal_rows(source, [name for name, kind in source.kinds.items() if kind != "ignore"])
        duplicates = count_duplicates(first, np.zeros(source.rows))
    return duplicates["rows"], problems


def _unfit(source: Source, block: DataSpec, told: ColumnLook, column: Column) -> Iterator[str]:
    """What no network takes: values beyond float32, and gaps where the spec wants none."""
    beyond = told.least is not None and told.greatest is not None and max(-told.least, told.greatest) > LIMIT
    numbers = told.kind in ("numeric", "datetime")
    if beyond or (told.missing and (block.missing.numeric if numbers else block.missing.categorical) == "refuse"):
        try:
            deque(fit(told.name, told.kind, column, block).encoder.encode(column), 0)
        except CellError as error:
            yield f"{source.line(error.place)}: {error}"


# -- one column --


def _column(source: Source, name: str, column: Column, left_out: str, decimal: str) -> ColumnLook:
    """`left_out`: why data.split takes it out of the inputs; `decimal`: the file's."""
    how = source.numbers.get(name) or source.dates.get(name)
    written = as_stated(how, decimal) if how else {}
    kind, refused = source.kinds[name], source.refused.get(name)
    worded = bool(column.categories) or column.values.dtype.kind != "f"
    present = column.values[~column.gaps]
    values, counts = np.unique(present, return_counts=True)

    def spell(value: Any) -> str:
        return column.categories[int(value)] if worded else shown(kind, float(value))

    def most(number: int) -> Iterator[tuple[str, int]]:
        yield from ((spell(values[place]), int(counts[place])) for place in often[:number])

    often = np.argsort(-counts, kind="stable")
    numbers = not worded and kind != "boolean" and bool(len(values))
    repeated = not numbers or bool((counts > 1).any())
    bars = _bars(spell, values, counts) if numbers else most(MOST_BARS)
    others = 0 if numbers else int(counts[often[MOST_BARS:]].sum())
    return ColumnLook(
        name=name,
        kind=refused.kind if refused else kind,
        stated=name in source.stated,
        note=source.notes.get(name, "") or (f"no input: {left_out}" if left_out else ""),
        problem=source.problems.get(name, ""),
        odd=refused.odd if refused else (),
        missing=int(column.gaps.sum()),
        distinct=len(values),
        least=float(values[0]) if numbers else None,
        median=2 * float(np.median(present / 2)) if numbers else None,  # halves: a sum may be beyond float64
        greatest=float(values[-1]) if numbers else None,
        frequent=tuple(most(FREQUENT)) if repeated else (),
        example=spell(present[0]) if len(present) else "",
        histogram=(*bars, *([(f"{len(values) - MOST_BARS} others", others)] if others else [])),
        written=flow(written) if written else "",
    )


def _bars(spell: Callable[[Any], str], values: NDArray, counts: NDArray) -> Iterator[tuple[str, int]]:
    """Bars of equal width; one a value where there are few whole numbers."""
    if len(values) <= BARS and (values == np.floor(values)).all():
        yield from zip(map(spell, values), counts.tolist(), strict=True)
        return
    share = np.linspace(0, 1, BARS + 1)
    edges = values[0] * (1 - share) + values[-1] * share  # a difference may overflow
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, BARS - 1)  # np.histogram wants edges that differ
    rows = np.bincount(place, weights=counts, minlength=BARS)
    for low, high, count in zip(edges, edges[1:], rows, strict=False):
        yield f"{spell(low)} to {spell(high)}", int(count)


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


# -- suspicions --


def suspect(name: str, kind: Kind, column: Column, target: Target | None, most: int) -> Iterator[Suspicion]:
    """What may be wrong with one input. `most` categories have an input each."""
    if kind == "ignore":
        return
    values = np.where(np.isnan(column.values), np.inf, column.values)  # a missing value equals another
    if len(values) and (values == values[0]).all():
        yield Suspicion(name, "constant", "the same value in every row")
        return
    if kind == "numeric" and _numbers_rows(column.values):
        yield Suspicion(name, "order", "whole numbers without repeats that number the rows: an id? data.columns can ignore it")
    if kind == "categorical":
        rows = np.bincount(column.values[~column.gaps], minlength=len(column.categories))
        yield from _many(name, rows, most)
        yield from suspect_spellings(name, dict(zip(column.categories, rows.tolist(), strict=True)))
    step = -(-len(values) // ROWS)
    some = Column(column.values[::step], column.categories)
    for place, answer in enumerate(target.names if target else ()):
        if len(some.values) >= LEAST_ROWS and target:
            y = target.y[::step]
            why = _tells_class(some, y, answer) if target.classes else _tells_number(some, y[:, place], answer)
            if why:
                yield Suspicion(name, "leak", why)


def _many(name: str, rows: NDArray, most: int) -> Iterator[Suspicion]:
    """`rows` of each category."""
    others = int(np.sort(rows)[::-1][most:].sum())
    if others > RARE * rows.sum():
        yield Suspicion(
            name, "many",
            f"{np.count_nonzero(rows):,} categories, of which the {most} most frequent have an input each; "
            f"{others / rows.sum():.1%} of the rows have another, and share one: an id? data.columns can ignore it, "
            "data.categories.most give it more inputs",
        )  # fmt: skip


def suspect_spellings(name: str, rows: Mapping[str, int]) -> Iterator[Suspicion]:
    """Categories, or classes, that differ in case or marks alone. `rows` of each."""
    first: dict[str, str] = {}
    alike: dict[str, str] = {}  # spelling -> the most frequent one
    for label in sorted(rows, key=lambda label: -rows[label]):
        other = first.setdefault(label_key(label), label)
        if other != label and label_key(label):
            alike[label] = other
    if alike:
        more = f" and {len(alike) - SHOWN} more" if len(alike) > SHOWN else ""
        asked = ", ".join(f"{one!r} and {other!r}" for one, other in islice(alike.items(), SHOWN))
        said = flow({name: dict(islice(alike.items(), SHOWN))})
        yield Suspicion(name, "spelling", f"are {asked}{more} one? if so, set data.spellings: {said}")


def suspect_task(source: Source, target: Target, block: DataSpec) -> Iterator[Suspicion]:
    """Marks from 0 to 20 may be classes, or amounts."""
    name = target.names[0]
    values = np.unique(source.fetch(name).values)
    most = MARKS if target.classes else min(MARKS, source.rows // EACH)
    few = FEW_CLASSES < len(values) <= most and (values == np.floor(values)).all()
    auto = block.task == "auto" and block.paths and source.kinds[name] == "numeric"
    if auto and few and len(target.names) == 1:
        which = f"the {len(values)} whole numbers {values[0]:.0f} to {values[-1]:.0f}"
        ways = "for amounts set data.task: regression; for classes set data.task: multiclass"
        yield Suspicion(name, "task", f"are {which} amounts, as marks are, or names of classes? {ways}")


def suspect_sentinel(source: Source, block: DataSpec, name: str, column: Column) -> Iterator[Suspicion]:
    """Values at an edge of the range that may mean no value."""
    kind, dropped = source.kinds[name], " and data.missing.target: drop" if name in source.targets else ""
    numeric = kind == "numeric"
    how = source.numbers.get(name, Numbers()) if numeric else source.dates.get(name, Dates())
    key, said = "numbers" if numeric else "dates", as_stated(how, block.format.decimal)
    for edge, rows, inner in edges(column.values, kind):
        gaps = [shown(kind, gap) if not numeric else int(gap) if gap == int(gap) else gap for gap in (*how.gaps, edge)]
        said["missing"] = gaps if len(gaps) > 1 else gaps[0]
        told = f"{shown(kind, edge)} in {rows:,} rows, and no other value beyond {shown(kind, inner)}"
        yield Suspicion(name, "sentinel", f"{told}: does it mean no value? if so, set data.{key}: {flow({name: said})}{dropped}")


def edges(values: NDArray, kind: Kind) -> Iterator[tuple[float, int, float]]:
    """(value, its rows, the next value) at ends of the range that lie far from the rest."""
    values = values[~np.isnan(values)]
    found, counts = np.unique(values, return_counts=True)
    if len(found) <= SENTINEL_VALUES:
        return
    for place, inner, last in ((0, 1, -1), (-1, -2, 0)):
        edge, near, rows = float(found[place]), float(found[inner]), int(counts[place])
        text = shown(kind, edge)
        usual = text in NO_DATES or (abs(edge) >= 9 and {*text.strip("-")} <= {"9", "."})
        spread = abs(found[last] / 4 - near / 4)  # may overflow
        few = (2 if "." in text else 4) if usual else 1  # 99.99 may be a price
        odd = abs(near / 4 - edge / 4) > spread / few
        if kind == "numeric" and not place:
            odd |= edge < 0 <= near and edge == np.floor(edge)
            odd = _no_zero(values, found) if edge == 0 else odd
        if odd and rows >= SENTINEL_ROWS:
            yield edge, rows, near


def _no_zero(values: NDArray, found: NDArray) -> bool:
    """Whether 0 is no amount: few have it, and the others, measured finely, end far above."""
    rest, least = values[values > 0], found[1]
    low, high = np.percentile(rest, (25, 75))
    far = least > min((found[-1] - least) / 5, (high - low) / 2.1)
    fine = least >= 3 * np.median(np.diff(found[1:]))
    return bool(far and fine and 2 * len(rest) >= len(values))


def _numbers_rows(values: NDArray) -> bool:
    """Whole numbers, all different, that lie densely or rise from row to row."""
    if len(values) < LEAST_ROWS or not np.isfinite(values).all() or (values != np.floor(values)).any():
        return False
    if (values[1:] > values[:-1]).all():
        return True
    return bool(values.max() / 2 - values.min() / 2 < DENSE * len(values) / 2) and len(np.unique(values)) == len(values)


def _tells_number(column: Column, y: NDArray, target: str) -> str:
    """How the column tells a numeric target; "" if it does not."""
    from scipy.stats import spearmanr

    present = ~column.gaps
    x, y = column.values[present], y[present]
    if column.categories or len(x) < LEAST_ROWS or (x == x[0]).all() or (y == y[0]).all():
        return ""
    if (x == y).all():
        return f"equals the target {target}"
    r = float(spearmanr(x, y).statistic)
    return f"follows the target {target}: rank correlation {r:.4f}" if abs(r) > RANKS else ""


def _tells_class(column: Column, y: NDArray, target: str) -> str:
    """How the column tells a class; "" if it does not."""
    most = np.bincount(y).max() / len(y)
    values, place = np.unique(column.values, return_inverse=True)
    if len(values) <= min(FEW, len(y) // EACH):
        share, rule = purity(place, y), f"its {len(values)} values tell"
    else:
        share, rule = purity(column.gaps.astype(np.int64), y), "whether it has a value tells"
        if not column.categories and (split := split_purity(place, y)) > share:
            share, rule = split, "split into a range a class it tells"
    if share > PURITY and 1 - share <= BETTER * (1 - most):
        return f"{rule} the target {target} in {share:.1%} of the rows"
    return ""


def purity(place: NDArray, y: NDArray) -> float:
    """Share of rows of the most frequent class at their place; both (n,) count from 0."""
    classes = y.max() + 1
    table = np.bincount(place * classes + y, minlength=(place.max() + 1) * classes).reshape(-1, classes)
    return float(table.max(axis=1).sum() / len(y))


def split_purity(ranks: NDArray, y: NDArray) -> float:
    """Share of rows that as many ranges as there are classes tell; `ranks` of the values, (n,)."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=max(2, len(np.unique(y))), random_state=0)
    return float(tree.fit(ranks[:, None], y).score(ranks[:, None], y))


# -- all at once --


def all_faults(error: DataError, block: DataSpec, base: Path | None) -> DataError:
    """The error, or, where a look at the data finds more faults, one that lists them all."""
    try:
        problems = look(block, base).problems
    except DataError:
        return error
    others = [problem for problem in problems if problem != str(error)]
    return DataError(listed(block.shown_source, [str(error), *others]))
