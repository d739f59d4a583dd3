"""What every module of this folder shares: the one error, and what a reader hands on: named columns, one at a time in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.spec.blocks import Kind

PARTS = ("train", "valid", "test")
NDArray = np.ndarray[Any, np.dtype[Any]]


class DataError(ValueError):
    """Data that cannot be used as the spec says. The message names file, row and column where there is one."""

    exit_code = 2


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


@dataclass(frozen=True)
class Source:
    """Rows as they were read, with what their columns hold: as the spec says, else as they look.

    A column may be asked for again, and is read again then. `part` (rows,) int8 is the place of each row's part in PARTS where
    the data come split; -1 leaves it open. `line` names a row, counted from 0, as a message must: "data/a.csv:17".
    """

    name: str
    rows: int
    kinds: Mapping[str, Kind]  # of every column, targets too, in the order of the file
    targets: tuple[str, ...]
    fetch: Callable[[str], Column]  # also of an ignored column, as text
    line: Callable[[int], str]
    part: NDArray | None = None
    notes: Mapping[str, str] = field(default_factory=dict)  # column -> why it is ignored though nothing says so
    orders: Mapping[str, str] = field(default_factory=dict)  # column of dates -> what its cells begin with, as in formats.py

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that may become inputs."""
        return tuple(name for name, kind in self.kinds.items() if name not in self.targets and kind != "ignore")

    def __post_init__(self) -> None:
        if not self.inputs:
            raise DataError(f"{self.name}: there must be a column beside the target that is not ignored, found none")
        if not self.rows:
            raise DataError(f"{self.name}: the file has no rows")
