"""Curves of a classifier, from arrays: ROC, precision against recall, calibration, and what each class comes to.

They are what figures are drawn from, so they stay small: of a million rows as of a hundred.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pipelines.stages.metrics import Truth, average_precision, judged, ranking, roc_area, wilson

NDArray = np.ndarray[Any, np.dtype[Any]]
POINTS = 1000  # of a curve; the area below it moves by less than 1/2000 then, which is half of the third decimal
OF_ALL = 20_000  # points of all classes' curves together, as long as each keeps FEWEST
FEWEST = 100
BINS = 10  # of a calibration curve
ROWS_A_BIN = 10  # at least: a share of fewer rows says little


def roc_curves(truth: Truth, P: NDArray) -> Iterator[tuple[int, NDArray, NDArray]]:
    """(class, false positive rate, true positive rate) of each class that a ranking is judged for. P (n, classes)."""
    for c, hits, misses in _counts(truth, P):
        # A point on the line between its neighbours says nothing.
        bends = np.concatenate([[True], (np.diff(hits, 2) != 0) | (np.diff(misses, 2) != 0), [True]])[-len(hits) :]
        x, y = np.append(0.0, misses[bends] / misses[-1]), np.append(0.0, hits[bends] / hits[-1])
        kept = thinned(x + y, _most(truth))
        yield c, x[kept], y[kept]


def pr_curves(truth: Truth, P: NDArray) -> Iterator[tuple[int, NDArray, NDArray]]:
    """(class, recall, precision) of each class that a ranking is judged for, from the highest score down. P (n, classes).

    Of the points of one recall the first and the last are kept: between them precision only falls.
    """
    for c, hits, misses in _counts(truth, P):
        recall, precision = hits / hits[-1], hits / (hits + misses)
        steps = np.diff(hits) != 0
        corners = np.append(True, steps) | np.append(steps, True)
        x, y = recall[corners], precision[corners]
        level = y[1:] == y[:-1]
        inner = np.append(False, level) & np.append(level, False)  # as precise as both neighbours: on a line with them
        x, y = x[~inner], y[~inner]
        kept = thinned(x, _most(truth))
        yield c, x[kept], y[kept]


def _counts(truth: Truth, P: NDArray) -> Iterator[tuple[int, NDArray, NDArray]]:
    """(class, rows of it, other rows) down to each distinct score, from the highest."""
    for c in judged(truth):
        positives, negatives = ranking(truth.y == c, P[:, c])(np.ones((1, len(P))))
        yield c, positives[0].cumsum(), negatives[0].cumsum()


def _most(truth: Truth) -> int:
    return int(np.clip(OF_ALL // max(1, len(judged(truth))), FEWEST, POINTS))


def thinned(along: NDArray, most: int) -> NDArray:
    """Places of at most `most` points of a curve, as even as can be by `along`, which never falls; both ends are kept."""
    if len(along) <= most:
        return np.arange(len(along))
    wanted = np.linspace(along[0], along[-1], most)
    places = np.searchsorted(along, wanted)
    return np.unique(np.concatenate([[0], places[1:-1], [len(along) - 1]]))


class Bin(NamedTuple):
    """Rows of like probability: how many, what was predicted for them, what came true, with Wilson's 95 % interval."""

    rows: int
    least: float  # the probabilities that it holds
    greatest: float
    predicted: float  # their mean
    observed: float  # share of the rows for which it came true
    observed_low: float | None
    observed_high: float | None


def calibration(truth: Truth, P: NDArray, outputs: NDArray, intervals: bool = True) -> Iterator[Bin]:
    """Probability against observed share, in at most 10 bins of equally many rows; equal probabilities stay together.

    Of two classes, P of the second, and how often it was the second. Of several, P of the predicted class, and how often it
    was right (Guo et al. 2017). P (n, classes), outputs (n, O). `intervals`: the rows are independent of one another.
    """
    if truth.task == "binary":
        p, true = P[:, 1], truth.y == 1
    else:
        predicted = truth.decide(outputs)
        p, true = P[np.arange(len(P)), predicted], predicted == truth.y
    order = np.argsort(p, kind="stable")
    p, true = p[order], true[order]
    count = int(np.clip(len(p) // ROWS_A_BIN, 1, BINS))
    edges = np.searchsorted(p, p[np.arange(count) * len(p) // count])
    starts = np.unique(edges)
    for start, stop in zip(starts, [*starts[1:], len(p)], strict=True):
        came = int(true[start:stop].sum())
        inside = p[start:stop]
        rows = int(stop - start)
        ends = wilson(came, rows) if intervals else (None, None)
        yield Bin(rows, float(inside[0]), float(inside[-1]), float(inside.mean()), came / rows, *ends)


class OfClass(NamedTuple):
    """How right one class is, taken against the rest. None where these rows do not define it."""

    rows: int
    predicted: int  # rows that are said to be of it
    precision: float | None
    recall: float | None
    f1: float | None
    roc_auc: float | None
    pr_auc: float | None


def by_class(truth: Truth, P: NDArray, outputs: NDArray) -> Iterator[OfClass]:
    """Of each class in turn, of two classes of both. P (n, classes), outputs (n, O)."""
    said, classes = truth.decide(outputs), P.shape[1]
    once = np.ones((1, len(P)))
    for c in range(classes):
        actual, claimed = truth.y == c, said == c
        rows, predicted, right = int(actual.sum()), int(claimed.sum()), int((actual & claimed).sum())
        areas: tuple[float | None, float | None] = (None, None)
        if 0 < rows < len(P):
            counts = ranking(actual, P[:, c])(once)
            areas = float(roc_area(*counts)[0]), float(average_precision(*counts)[0])
        shares = _share(right, predicted), _share(right, rows), _share(2 * right, rows + predicted)
        yield OfClass(rows, predicted, *shares, *areas)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
