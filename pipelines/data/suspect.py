"""Columns that may know what they should not, and columns that say nothing: rules of thumb, each with its threshold and a reason.

A suspicion is a question to a person. Nothing is left out because of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipelines.data.columns import Column, NDArray
from pipelines.data.formats import label_key
from pipelines.spec.blocks import Kind

RANKS = 0.999  # rank correlation with a numeric target: measured quantities seldom follow one another so closely
PURITY = 0.995  # rows whose class a rule of one column tells
BETTER = 0.1  # of the errors that always naming the most frequent class makes, so few may be left: 1 % of fraud is no leak
FEW = 50  # values of a rule
EACH = 5  # rows a value on average, at least, for such a rule: what stands once or twice tells its own class
RARE = 0.1  # of the rows with a category that has no input of its own: so many are worth a word
LEAST_ROWS = 20  # below, such things happen by chance
ROWS = 100_000  # of a larger set so many are looked at, evenly spaced
SHOWN = 5  # spellings
DENSE = 2  # whole numbers, all different, on a range of at most twice as many: they number the rows


@dataclass(frozen=True)
class Suspicion:
    """What is suspected of a column: it tells the target (leak), it numbers the rows (order), it says nothing (constant).

    Or it has too many categories to have an input each (many), or several spellings of one (spelling).
    """

    column: str
    kind: Literal["leak", "order", "constant", "many", "spelling"]
    why: str


@dataclass(frozen=True)
class Answer:
    """A target to test columns against: numbers, or places of classes, (n,), NaN or -1 where it is missing."""

    name: str
    values: NDArray
    classes: bool


def suspect(name: str, kind: Kind, column: Column, answers: list[Answer], most: int) -> Iterator[Suspicion]:
    """What may be wrong with one input. A column that is ignored can harm nothing, and is not looked at.

    `most` categories have an input of their own.
    """
    if kind == "ignore":
        return
    values = _keyed(column)
    if len(values) and (values == values[0]).all():
        yield Suspicion(name, "constant", "the same value in every row")
        return
    if kind == "numeric" and _numbers_rows(column.values):
        yield Suspicion(name, "order", "whole numbers without repeats that number the rows: an id? data.columns can ignore it")
    if kind == "categorical":
        rows = np.bincount(column.values[column.values >= 0], minlength=len(column.categories))
        yield from _many(name, rows, most)
        yield from suspect_spellings(name, dict(zip(column.categories, rows.tolist(), strict=True)))
    for answer in answers:
        why = _tells(column, values, answer)
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
    alike: list[str] = []
    for label in sorted(rows, key=lambda label: -rows[label]):
        other = first.setdefault(label_key(label), label)
        if other != label and label_key(label):
            alike.append(f"{label!r} and {other!r}")
    if alike:
        more = f", and {len(alike) - SHOWN} more" if len(alike) > SHOWN else ""
        yield Suspicion(name, "spelling", f"are {', '.join(alike[:SHOWN])}{more} one? data.spellings joins them")


def _keyed(column: Column) -> NDArray:
    """Values that can be compared: a missing one equals another."""
    if column.categories or column.values.dtype.kind != "f":
        return column.values
    return np.where(np.isnan(column.values), np.inf, column.values)


def _numbers_rows(values: NDArray) -> bool:
    """Whole numbers, all different, that lie densely or rise from row to row."""
    if len(values) < LEAST_ROWS or not np.isfinite(values).all() or (values != np.floor(values)).any():
        return False
    if (values[1:] > values[:-1]).all():
        return True
    return bool(values.max() / 2 - values.min() / 2 < DENSE * len(values) / 2) and len(np.unique(values)) == len(values)


def _tells(column: Column, values: NDArray, answer: Answer) -> str:
    """How the column tells the target; "" if it does not."""
    step = -(-len(values) // ROWS)
    column, values, y = Column(column.values[::step], column.categories), values[::step], answer.values[::step]
    known = ~np.isnan(y) if not answer.classes else y >= 0
    if known.sum() < LEAST_ROWS:
        return ""
    if answer.classes:
        return _tells_classes(column, values[known], y[known].astype(np.int64), answer.name)
    both = known & ~column.gaps
    if column.categories or both.sum() < LEAST_ROWS:
        return ""
    if (column.values[both] == y[both]).all():
        return f"equals the target {answer.name}"
    r = rank_correlation(column.values[both], y[both])
    return f"follows the target {answer.name}: rank correlation {r:.4f}" if abs(r) > RANKS else ""


def _tells_classes(column: Column, values: NDArray, y: NDArray, target: str) -> str:
    most = np.bincount(y).max() / len(y)
    different, place = np.unique(values, return_inverse=True)
    if len(different) <= min(FEW, len(y) // EACH):
        share, rule = purity(place, y), f"its {len(different)} values tell"
    elif column.categories or column.values.dtype.kind != "f":
        share, rule = purity((values < 0).astype(np.int64), y), "whether it has a value tells"
    else:
        gap, split = purity(np.isinf(values).astype(np.int64), y), split_purity(values, y)
        share, rule = (gap, "whether it has a value tells") if gap >= split else (split, "split into a range a class it tells")
    if share > PURITY and 1 - share <= BETTER * (1 - most):
        return f"{rule} the target {target} in {share:.1%} of the rows"
    return ""


def purity(place: NDArray, y: NDArray) -> float:
    """Share of rows that are of the most frequent class at their place; `place` and `y` (n,) count from 0."""
    table = np.zeros((place.max() + 1, y.max() + 1), dtype=np.int64)
    np.add.at(table, (place, y), 1)
    return float(table.max(axis=1).sum() / len(y))


def split_purity(values: NDArray, y: NDArray) -> float:
    """Share of rows that as many ranges as there are classes tell, cut where the classes' medians part."""
    classes = [number for number in np.unique(y) if (y == number).any()]
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values))
    by_median = sorted(classes, key=lambda number: float(np.median(ranks[y == number])))
    place = np.searchsorted(by_median, y) if by_median == classes else np.array([by_median.index(number) for number in y])
    right = 0
    cuts = [0]
    for number in range(len(classes) - 1):
        below = np.cumsum((place[order] <= number) * 2 - 1)  # best cut between the classes up to this and those above
        cuts.append(max(cuts[-1], int(np.argmax(below)) + 1))
    for number, (start, end) in enumerate(zip(cuts, [*cuts[1:], len(values)], strict=True)):
        right += int((place[order][start:end] == number).sum())
    return right / len(values)


def rank_correlation(a: NDArray, b: NDArray) -> float:
    """Spearman's, with the middle rank for ties; 0 for a constant."""
    ranks = [_ranks(values) for values in (a, b)]
    spreads = [values.std() for values in ranks]
    if not all(spreads):
        return 0.0
    return float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / (spreads[0] * spreads[1]))


def _ranks(values: NDArray) -> NDArray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + 1) / 2)[place])
