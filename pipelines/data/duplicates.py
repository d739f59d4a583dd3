"""Rows that are equal in every column: found by hashes of 128 bits, one column at a time in memory.

A column that is ignored does not count: an id makes no two rows different that a network could tell apart.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipelines.data.columns import Column, NDArray, Source

BLOCK = 2**15  # rows at a time: all that is computed of them stays in the processor's cache
ODD = np.uint64(0x9E3779B97F4A7C15)
MIX = ((30, np.uint64(0xBF58476D1CE4E5B9)), (27, np.uint64(0x94D049BB133111EB)))  # splitmix64: Steele et al. 2014


def equal_rows(source: Source, columns: Iterable[str]) -> NDArray | None:
    """The first row that equals each row in these columns, (n,) int64, often the row itself; None if no two rows are equal."""
    sums = np.zeros((2, source.rows), dtype=np.uint64)
    for place, name in enumerate(columns, 1):
        _add(sums, _words(source.fetch(name)), np.uint64(place))
    return _first_of_equal(*sums)


def _words(column: Column) -> NDArray:
    """64 bits a value, the same for equal values alone."""
    if column.values.dtype.kind == "f":
        values = column.values + 0.0  # -0.0 is 0.0
        values[np.isnan(values)] = np.nan  # NaN has many spellings
        return np.asarray(values.view(np.uint64))
    return np.asarray(column.values.astype(np.int64).view(np.uint64))


def _add(sums: NDArray, words: NDArray, place: NDArray | np.uint64) -> None:
    """Σ of the mixed words, and a polynomial of them. Within a column the mixing is one to one."""
    with np.errstate(over="ignore"):
        salt = place * ODD
        for start in range(0, len(words), BLOCK):
            block = slice(start, start + BLOCK)
            z = words[block] + salt
            for shift, factor in MIX:
                z ^= z >> np.uint64(shift)
                z *= factor
            z ^= z >> np.uint64(31)
            sums[0, block] += z
            sums[1, block] *= ODD
            sums[1, block] += z


def _first_of_equal(one: NDArray, two: NDArray) -> NDArray | None:
    order = np.argsort(one, kind="stable")
    alike = np.flatnonzero(np.diff(one[order]) == 0)
    if not len(alike):
        return None
    rows = order[np.union1d(alike, alike + 1)]
    rows = rows[np.lexsort((rows, two[rows], one[rows]))]
    new = np.append(True, (np.diff(one[rows]) != 0) | (np.diff(two[rows]) != 0))
    if new.all():
        return None
    first = np.arange(len(one))
    first[rows] = rows[new][np.cumsum(new) - 1]
    return first


def count_across(first: NDArray, part: NDArray) -> int:
    """Rows (n,) that equal a row of another part; `part` (n,) numbers the parts."""
    torn = np.zeros(len(first), dtype=bool)
    torn[first[part != part[first]]] = True
    return int(torn[first].sum())
