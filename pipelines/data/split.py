"""Three disjoint parts. Every row is in exactly one, by its number and the split's seed alone.

A stratified split shares out the rows of each class, so each part has every class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backends.draws import SPLIT, raw_words
from pipelines.data.table import DataError, NDArray

PARTS = ("train", "valid", "test")


def split(rows: int, fractions: Sequence[float], seed: int, strata: NDArray | None = None) -> dict[str, NDArray]:
    """Row numbers of each part, (n,) int64 in drawn order. `strata` (rows,) are class numbers to be shared out evenly.

    Raises DataError where a part, or a class in a part, would have no row.
    """
    words = raw_words(seed, SPLIT, 0, rows)
    order = np.argsort(words, kind="stable")
    groups = np.zeros(rows, dtype=np.int64) if strata is None else strata
    shares = share_out(np.bincount(groups), fractions)
    if strata is None and (shares == 0).any():
        raise DataError(f"each of the {len(PARTS)} parts needs a row, got {rows} in all: {_spell(shares[0])}")
    part = np.empty(rows, dtype=np.int64)
    for group, share in enumerate(shares):
        part[order[groups[order] == group]] = np.repeat(np.arange(len(PARTS)), share)
    return {name: order[part[order] == number] for number, name in enumerate(PARTS)}


def share_out(counts: NDArray, fractions: Sequence[float]) -> NDArray:
    """Rows of each group for each part, (groups, parts), as near to the fractions as whole rows allow.

    A group with as many rows as there are parts has one in each.
    """
    parts = np.asarray(fractions, dtype=np.float64) / np.sum(fractions)
    shares, behind = [], np.zeros(len(parts))
    for count in counts:
        share = np.floor(count * parts + 1e-9).astype(np.int64)  # 0.7 · 30 is 20.999...
        behind += count * parts - share
        for _ in range(count - share.sum()):
            first = int(np.argmax(behind))  # the part that lags most behind its fraction of all rows so far
            share[first] += 1
            behind[first] -= 1
        while count >= len(parts) and not share.all():
            share[np.argmax(share)] -= 1
            share[np.argmin(share)] += 1
        shares.append(share)
    return np.array(shares)


def check_strata(source: str, classes: Sequence[str], y: NDArray) -> None:
    """Raises DataError if a class has too few rows for one in each part."""
    counts = np.bincount(y, minlength=len(classes))
    short = [f"{name!r} has {count}" for name, count in zip(classes, counts, strict=True) if count < len(PARTS)]
    if short:
        raise DataError(
            f"{source}: each class must have at least {len(PARTS)} rows for a stratified split, one a part, but class "
            f"{', class '.join(short[:5])}; add rows, join rare classes, or set data.split.stratify: false"
        )


def check_training_classes(source: str, classes: Sequence[str], y: NDArray) -> None:
    """Raises DataError if a class has no training row, so that nothing could be learned about it."""
    counts = np.bincount(y, minlength=len(classes))
    absent = [repr(name) for name, count in zip(classes, counts, strict=True) if not count]
    if absent:
        raise DataError(
            f"{source}: every class must have training rows, but class {', class '.join(absent[:5])} has none; "
            "set data.split.stratify: true, or choose another data.split.seed"
        )


def _spell(share: NDArray) -> str:
    return ", ".join(f"{name} {count}" for name, count in zip(PARTS, share, strict=True))
