"""What the rows look like, before anything is trained on them: kinds, gaps, classes, duplicates, and columns that know too much.

The one home of these heuristics; each threshold is a constant with its reason.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.spec.blocks import DataSpec, Kind


@dataclass(frozen=True)
class ColumnLook:
    """One column. `least`, `median` and `greatest` are None but for numbers and dates (dates: days since 1970-01-01)."""

    name: str
    kind: Kind
    stated: bool  # by data.columns; else as it looks
    note: str  # why it is ignored, or what is remarkable; "" for most
    problem: str  # what `read` would refuse it with; "" if nothing
    odd: tuple[str, ...]  # the words among its numbers, most frequent first, where that is the problem
    missing: int
    distinct: int
    least: float | None
    median: float | None
    greatest: float | None
    frequent: tuple[tuple[str, int], ...]  # category or value, rows; the most frequent first
    example: str  # its first value
    histogram: tuple[tuple[str, int], ...]  # what a bar stands for, rows


@dataclass(frozen=True)
class Suspicion:
    """A column that may know what it should not, or says nothing. `kind` is leak, order, constant."""

    column: str
    kind: str
    why: str


@dataclass(frozen=True)
class Look:
    """All of it; `as_dict` is what --json prints."""

    source: str
    rows: int
    columns: tuple[ColumnLook, ...]  # targets too, in the order of the file
    targets: tuple[str, ...]  # those that are columns of the file
    task: str  # regression, binary, multiclass; "" without a target
    classes: dict[str, int]  # rows of each; empty for regression
    duplicates: int  # rows that repeat an earlier one in every column
    suspicions: tuple[Suspicion, ...]
    problems: tuple[str, ...]  # what `read` would refuse, first things first

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and words."""
        return asdict(self)


def look(block: DataSpec, base: Path | None = None) -> Look:
    """Look at all rows. A column or target that `read` would refuse is told of in `problems`.

    `block` may lack a target. Raises DataError where there is no table to look at.
    """
    raise NotImplementedError
