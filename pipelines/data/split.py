"""Dealing rows out to parts. Every row is in exactly one, by its number and the split's seed alone.

A stratified split shares out the rows of each class, so each part has every class. Rows that must stay together (equal rows, a
group, one moment) are dealt as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backends.draws import SPLIT, raw_words
from pipelines.data.columns import NDArray

DRAWS = 64  # orders of the groups that are tried at most; the one whose parts are nearest to their shares is taken
NEAR = 0.001  # of the rows: near enough to try no further


def drawn_order(rows: int, seed: int) -> NDArray:
    """All row numbers in the order that the seed draws, (rows,) int64."""
    return np.argsort(raw_words(seed, SPLIT, 0, rows), kind="stable")


def deal(order: NDArray, fractions: Sequence[float], strata: NDArray | None = None, first: NDArray | None = None) -> NDArray:
    """The part, from 0, of each row of `order`, (len(order),): whole numbers of rows, as near to the fractions as they can be.

    `strata` (n,) are class numbers of all rows, to be shared out evenly. `first` (n,) names the first of the rows that each row
    is to stay with, itself if none; such rows are of one class.
    """
    classes = np.zeros(len(order), dtype=np.int64) if strata is None else strata[order]
    shares = share_out(np.bincount(classes), fractions)
    heads = np.ones(len(order), dtype=bool) if first is None else first[order] == order
    sizes = None if first is None else np.bincount(first)
    places = np.flatnonzero(heads)[np.argsort(classes[heads], kind="stable")]  # of the units, class after class
    ends = np.cumsum(np.bincount(classes[heads], minlength=len(shares)))
    part = np.empty(len(order), dtype=np.int64)
    for share, units in zip(shares, np.split(places, ends[:-1]), strict=True):
        part[units] = cut(np.ones(len(units)) if sizes is None else sizes[order[units]], share)
    if first is None:
        return part
    of_head = np.empty(len(first), dtype=np.int64)
    of_head[order[heads]] = part[heads]
    return of_head[first[order]]


def cut(sizes: NDArray, share: Sequence[float] | NDArray) -> NDArray:
    """The part of each unit, (U,), where parts follow each other and are to have `share` rows: the nearest whole units.

    Each part has a unit, if there are enough.
    """
    parts = len(share)
    middles = np.cumsum(sizes) - np.asarray(sizes) / 2
    ends = np.searchsorted(middles, np.cumsum(share)[:-1])
    if len(sizes) >= parts:
        for place in range(parts - 1):
            ends[place] = max(ends[place], ends[place - 1] + 1 if place else 1)
        for place in reversed(range(parts - 1)):
            ends[place] = min(ends[place], (ends[place + 1] if place + 2 < parts else len(sizes)) - 1)
    return np.searchsorted(ends, np.arange(len(sizes)), side="right")


def deal_groups(groups: NDArray, fractions: Sequence[float], seed: int) -> NDArray:
    """The part of each row, (n,), where rows of a group, numbered from 0, stay together: the best of some drawn orders.

    A drawn order does not favour large groups for any part; of 64, one comes near to the shares, if the groups allow it.
    """
    sizes = np.bincount(groups)
    wanted = np.asarray(fractions) / np.sum(fractions) * len(groups)
    best, least = np.zeros(len(sizes), dtype=np.int64), np.inf
    for draw in range(DRAWS):
        order = np.argsort(raw_words(seed, SPLIT, draw, len(sizes)), kind="stable")
        part = np.empty(len(sizes), dtype=np.int64)
        part[order] = cut(sizes[order], wanted)
        off = np.abs(np.bincount(part, sizes, minlength=len(wanted)) - wanted).max()
        if off < least:
            best, least = part, off
        if least <= max(1, NEAR * len(groups)):
            break
    return best[groups]


def deal_in_order(values: NDArray, fractions: Sequence[float]) -> NDArray:
    """The part of each row, (n,), where later parts have larger values (n,); rows of one value stay together."""
    _, moment, sizes = np.unique(values, return_inverse=True, return_counts=True)
    wanted = np.asarray(fractions) / np.sum(fractions) * len(values)
    return cut(sizes, wanted)[moment]


def share_out(counts: NDArray, fractions: Sequence[float]) -> NDArray:
    """Rows of each class for each part, (classes, parts), as near to the fractions as whole rows allow.

    A class with as many rows as there are parts has one in each.
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
