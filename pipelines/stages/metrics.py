"""Every metric, from arrays, by kernels of our own; tests hold each to scikit-learn's number.

A metric that these rows do not define (ROC AUC of one class alone, R² of a constant) is left out, never guessed.

The kernels take W (R, n), how often each of R resamples holds each row; W = 1 gives the metric itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.draws import BOOTSTRAP, raw_words
from backends.losses import mean_loss, predictions, targets
from backends.spec import Task
from pipelines.data import About
from pipelines.data.preprocess import TargetScale
from pipelines.spec import METRICS, SpecError
from pipelines.spec.blocks import HALF, Validation
from pipelines.spec.describe import nearest
from pipelines.spec.to_trial import check_threshold

NDArray = np.ndarray[Any, np.dtype[Any]]
Interval = tuple[float, float]

CLASSIFICATION, POSITIVE, REGRESSION = (
    tuple(name for name, metric in METRICS.items() if metric.of == of) for of in ("classes", "positive", "numbers")
)
BINS = 15  # of the calibration error, of equal width (Guo et al. 2017)
RESAMPLES, FEWEST, DRAWN = 1000, 200, 10**7  # of the rows: most, fewest, and rows in all of them together, about
Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
BLOCK = 200_000  # numbers of W held at once; larger ones leave the cache


@dataclass(frozen=True)
class Truth:
    """What outputs are judged by: the task, y as `backends.losses.targets` takes it, and the names of the targets.

    For regression, `scale` leads from the training's scale, which y and the outputs are in, to the targets' own units.
    """

    task: Task
    y: NDArray
    outputs: int
    names: tuple[str, ...] = ()
    scale: TargetScale | None = None
    threshold: float = HALF  # of two classes

    @staticmethod
    def of(about: About, y: NDArray, threshold: float = HALF) -> Truth:
        """Of the rows of a part, as `split` wrote them."""
        scale = about.target_scale if about.task == "regression" else None
        return Truth(about.task, y, about.outputs, about.targets, scale, threshold)

    def decide(self, outputs: NDArray) -> NDArray:
        """See `decide`."""
        return decide(self.task, outputs, self.threshold)

    @property
    def own(self) -> NDArray:
        """Regression targets in their own units, (n, m)."""
        y = self.y.reshape(len(self.y), self.outputs)
        return self.scale.undo(y) if self.scale else y

    def predicted(self, outputs: NDArray) -> NDArray:
        """Regression predictions in the targets' own units, (n, m)."""
        z = outputs.astype(np.float64)
        return self.scale.undo(z) if self.scale else z


def names(truth: Truth) -> tuple[str, ...]:
    """All metrics of a task: of several targets each has its own, "rmse.NAME", and the mean over them is "rmse"."""
    if truth.task != "regression":
        return ("loss", *CLASSIFICATION, *(POSITIVE if truth.task == "binary" else ()))
    each = tuple(f"{metric}.{name}" for metric in REGRESSION for name in truth.names) if truth.outputs > 1 else ()
    return ("loss", *REGRESSION, *each)


def probabilities(task: Task, outputs: NDArray) -> NDArray:
    """P(class) of each row, (n, classes)."""
    p = predictions(task, outputs)
    return np.stack([1 - p, p], axis=1) if task == "binary" else p


def decide(task: Task, outputs: NDArray, threshold: float = HALF) -> NDArray:
    """The predicted class of each row, (n,): the likeliest.

    Of two, the second iff its probability is at least the threshold.
    """
    if task == "binary":
        return (outputs[:, 0] >= math.log(threshold / (1 - threshold))).astype(np.int64)
    return np.asarray(outputs.argmax(axis=1))


def evaluate(truth: Truth, outputs: NDArray) -> dict[str, float]:
    """Every metric that these rows define. outputs (n, O) are those before softmax or sigmoid.

    loss is E, unweighted, in the training's scale; regression metrics are in the targets' own units.
    """
    loss = float(mean_loss(truth.task, outputs, targets(truth.task, truth.y, truth.outputs)))
    found = kernel(truth, outputs)(np.ones((1, len(outputs))))
    return _defined({"loss": loss, **{name: found[name][0] for name in names(truth) if name != "loss" and name in found}})


def _defined(found: dict[str, Any]) -> dict[str, float]:
    """As Python's floats, without what these rows do not define."""
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def judged(truth: Truth) -> list[int]:
    """The classes that a ranking is judged for: the second of two; of several, each that some rows are of and some not."""
    counts = np.bincount(truth.y, minlength=max(2, truth.outputs))
    candidates = [1] if truth.task == "binary" else range(len(counts))
    return [c for c in candidates if 0 < counts[c] < len(truth.y)]


def _with_means(truth: Truth, each: dict[str, NDArray]) -> dict[str, Any]:
    """The mean over targets under a metric's name, then each target's own; arrays (..., m) -> (...)."""
    found = {metric: values.mean(-1) for metric, values in each.items()}
    if truth.outputs > 1:
        for metric, values in each.items():
            found |= {f"{metric}.{name}": values[..., place] for place, name in enumerate(truth.names)}
    return found


# -- the threshold of two classes --


def choose_threshold(validation: Validation, truth: Truth, outputs: NDArray) -> float:
    """What validation.threshold asks for, on validation rows with outputs (n, O): between two of their probabilities.

    Of equally good ones the highest; with a recall that must be had the best precision, and the other
    way round. Raises SpecError where there are not two classes, and for a precision that none has.
    """
    key, aim = "validation.threshold", validation.threshold
    check_threshold(validation, truth.task)
    if isinstance(aim, float):
        return aim
    if not judged(truth):
        raise SpecError(f"{key} must be a number where all validation rows are of one class, got {aim}")
    P = probabilities(truth.task, outputs)[:, 1]
    counts = ranking(truth.y == 1, P)(np.ones((1, len(P))))
    # Down to each distinct probability, from the highest.
    hits, wrong = (count[0].cumsum() for count in counts)
    worth = _worth(aim, hits, wrong)
    best = int(worth.argmax())
    if worth[best] < 0:
        most = f"{(hits / (hits + wrong)).max():.4g}"
        raise SpecError(f"{key} must ask for what validation rows can have, got {aim}; they have {most}")
    steps = np.append(np.unique(P)[::-1], 0.0)
    middle = (steps[best] + steps[best + 1]) / 2
    return float(np.clip(middle, 1e-12, 1 - 1e-12))  # 0 and 1 have no logit


def _worth(aim: str | dict[str, float], hits: NDArray, wrong: NDArray) -> NDArray:
    """What each threshold is worth, of which so many rows are of the second class and so many not; -1: nothing."""
    recall, precision = hits / hits[-1], hits / (hits + wrong)
    if isinstance(aim, dict):
        [(name, least)] = aim.items()
        of, other = (recall, precision) if name == "recall" else (precision, recall)
        return np.where(of >= least, other, -1)
    return 2 * hits / (hits[-1] + hits + wrong) if aim == "f1" else recall - wrong / wrong[-1]


# -- each epoch --


def epoch_metrics(truth: Truth, monitor: str = "loss", *also: str) -> Callable[[NDArray], dict[str, float]]:
    """The cheap metrics of one epoch, the monitored one and others by name: a function of the validation outputs (n, O).

    Raises ValueError for a metric that these rows do not define, or that there is not.
    """
    check_metric(truth, monitor)
    for name in also:
        check_metric(truth, name, "search.metric")
    once = np.ones((1, len(truth.y)))

    def measure(outputs: NDArray) -> dict[str, float]:
        found = _cheap(truth, outputs)
        dear = {monitor, *also} - {"loss", *found}
        if dear:
            whole = kernel(truth, outputs)(once)
            found.update({name: float(whole[name][0]) for name in sorted(dear)})
        return found

    return measure


def check_metric(truth: Truth, monitor: str, key: str = "train.early_stopping.monitor") -> None:
    """Raises ValueError unless these rows define the metric that stands under `key` of the spec."""
    kind = monitor.partition(".")[0]
    if monitor not in names(truth):
        raise ValueError(f"{key} must be a metric of {truth.task}, got {monitor!r}; {nearest(monitor, [*names(truth)])}")
    if kind in ("roc_auc", "pr_auc", *POSITIVE) and not judged(truth):
        raise ValueError(f"{key}: {monitor} needs validation rows of two classes, found one; use loss or accuracy")
    if kind == "r2" and not _varying(truth.own).all():
        raise ValueError(f"{key}: {monitor} needs targets that vary over the validation rows, found a constant; use rmse")


def _varying(y: NDArray) -> NDArray:
    """Which targets take more than one value, (m,)."""
    return np.asarray((y != y[0]).any(axis=0))


def _cheap(truth: Truth, outputs: NDArray) -> dict[str, float]:
    if truth.task != "regression":
        return {"accuracy": float((truth.decide(outputs) == truth.y).mean())}
    y = truth.own
    error = truth.predicted(outputs) - y
    squares, spread = (error * error).mean(0), np.where(_varying(y), y.var(0), 0)
    each = {"rmse": np.sqrt(squares), "mae": np.abs(error).mean(0), "r2": 1 - _ratio(squares, spread)}
    return _defined(_with_means(truth, each))


# -- intervals --


def intervals(truth: Truth, outputs: NDArray) -> dict[str, Interval]:
    """95 % intervals of every metric that these rows define: Wilson for accuracy, percentile bootstrap for the others.

    1000 resamples of the rows, from raw Philox words of a fixed key; of more than 10 000 rows fewer, down to 200 from 50 000 on.
    """
    measure = kernel(truth, outputs)
    blocks = [measure(W) for W in resamples(len(truth.y), max(FEWEST, min(RESAMPLES, DRAWN // len(truth.y))))]
    itself = measure(np.ones((1, len(truth.y))))
    found = {name: _percentiles(np.concatenate([block[name] for block in blocks]), itself[name][0]) for name in blocks[0]}
    if truth.task != "regression":
        right = truth.decide(outputs) == truth.y
        found["accuracy"] = wilson(int(right.sum()), len(right))
    return {name: pair for name in names(truth) if (pair := found.get(name)) is not None}


def wilson(successes: int, trials: int) -> Interval:
    """Wilson's score interval of a proportion, 95 % (Wilson 1927)."""
    p, z2 = successes / trials, Z95 * Z95 / trials
    middle, half = p + z2 / 2, Z95 * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials))
    return max(0.0, min(p, (middle - half) / (1 + z2))), min(1.0, max(p, (middle + half) / (1 + z2)))  # p = 1 rounds below 1


def resamples(rows: int, count: int) -> Iterator[NDArray]:
    """How often each of `count` resamples with replacement holds each row: blocks of W (R, rows), float64."""
    block = max(1, min(count, BLOCK // rows))
    for start in range(0, count, block):
        size = min(block, count - start)
        # One stream a resample, so that the size of a block changes nothing.
        words = np.stack([raw_words(0, BOOTSTRAP, start + r, rows) for r in range(size)])
        drawn = ((words >> np.uint64(11)) * 2.0**-53 * rows).astype(np.int64) + rows * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def _percentiles(values: NDArray, itself: float) -> Interval | None:
    """The middle 95 %, or None where most resamples leave it undefined."""
    defined = values[np.isfinite(values)]
    if 2 * len(defined) < len(values):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(np.fmin(low, itself)), float(np.fmax(high, itself))


# -- kernels --

Kernel = Callable[[NDArray], dict[str, NDArray]]  # W (R, n) -> {metric: (R,)}, NaN where undefined


def kernel(truth: Truth, outputs: NDArray) -> Kernel:
    """Every metric as a function of W."""
    d = targets(truth.task, truth.y, truth.outputs)
    losses = mean_loss(truth.task, outputs[:, None], d[:, None])  # of each row
    more = _regression_kernel(truth, outputs) if truth.task == "regression" else _class_kernel(truth, outputs)
    return lambda W: {"loss": _mean(W, losses), **more(W)}


def _mean(W: NDArray, values: NDArray) -> NDArray:
    """The mean of a number of each row, (n,), or of several, (n, m)."""
    return (W @ values).T / W.sum(1)


def _class_kernel(truth: Truth, outputs: NDArray) -> Kernel:
    y, P, predicted = truth.y, probabilities(truth.task, outputs), truth.decide(outputs)
    one_hot, hit = np.eye(P.shape[1]), (predicted == y).astype(np.float64)
    tiny = np.finfo(np.float64).eps  # scikit-learn clips there
    logs = -np.log(np.clip(P[np.arange(len(y)), y], tiny, 1 - tiny))
    squares = ((P - one_hot[y]) ** 2).sum(1) / (2 if P.shape[1] == 2 else 1)  # as scikit-learn scales it
    gaps = _calibration_gaps(y, P, predicted)
    rankings = [ranking(y == c, P[:, c]) for c in judged(truth)]

    def measure(W: NDArray) -> dict[str, NDArray]:
        actual, claimed, right = W @ one_hot[y], W @ one_hot[predicted], W @ (one_hot[y] * hit[:, None])
        found = {
            "accuracy": _mean(W, hit),
            "balanced_accuracy": _nanmean(_ratio(right, actual)),
            "macro_f1": _nanmean(_ratio(2 * right, actual + claimed)),
            "log_loss": _mean(W, logs),
            "brier": _mean(W, squares),
            "calibration_error": np.abs(_mean(W, gaps)).sum(0),
        }
        if truth.task == "binary":
            hits, rows, said = right[:, 1], actual[:, 1], claimed[:, 1]
            found |= {
                "f1": _ratio(2 * hits, rows + said),
                # 0 where none is said to be of it, as scikit-learn has it.
                "precision": np.nan_to_num(_ratio(hits, said)),
                "recall": _ratio(hits, rows),
            }
        if rankings:
            counts = [groups(W) for groups in rankings]
            found["roc_auc"] = _nanmean(np.stack([roc_area(*pair) for pair in counts], axis=1))
            found["pr_auc"] = _nanmean(np.stack([average_precision(*pair) for pair in counts], axis=1))
        return found

    return measure


def _calibration_gaps(y: NDArray, P: NDArray, predicted: NDArray) -> NDArray:
    """Hit minus confidence of each row, in the column of its bin of confidence: (n, BINS). For ECE (Naeini et al. 2015):
    |accuracy - confidence| of the predicted class, by bin, weighted by rows.
    """
    confidence = P[np.arange(len(y)), predicted]
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return np.asarray(np.eye(BINS)[bins] * ((predicted == y) - confidence)[:, None])


def ranking(positive: NDArray, score: NDArray) -> Callable[[NDArray], tuple[NDArray, NDArray]]:
    """W -> positives and negatives at each distinct score, from the highest down: two (R, G)."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
    hits = positive[order].astype(np.float64)

    def groups(W: NDArray) -> tuple[NDArray, NDArray]:
        held = W[:, order]
        return np.add.reduceat(held * hits, starts, axis=1), np.add.reduceat(held * (1 - hits), starts, axis=1)

    return groups


def roc_area(positives: NDArray, negatives: NDArray) -> NDArray:
    """P(a positive row ranks above a negative one), ties by half: (R, G) twice -> (R,)."""
    below = negatives.sum(1, keepdims=True) - negatives.cumsum(1)
    return _ratio((positives * (below + negatives / 2)).sum(1), positives.sum(1) * negatives.sum(1))


def average_precision(positives: NDArray, negatives: NDArray) -> NDArray:
    """Σ (recall gained · precision) down the scores: (R, G) twice -> (R,). NaN without a positive row."""
    hits = positives.cumsum(1)
    held = hits + negatives.cumsum(1)
    gained = positives * np.divide(hits, held, out=np.zeros_like(hits), where=held > 0)
    return _ratio(gained.sum(1), positives.sum(1))


def _regression_kernel(truth: Truth, outputs: NDArray) -> Kernel:
    y = truth.own
    error, centred = truth.predicted(outputs) - y, y - y.mean(0)
    squares, sizes, spreads = error * error, np.abs(error), centred * centred

    def measure(W: NDArray) -> dict[str, NDArray]:
        mean_square = _mean(W, squares).T
        spread = (_mean(W, spreads) - _mean(W, centred) ** 2).T
        spread[spread <= 1e-12 * spreads.mean(0)] = 0  # a resample of equal rows, up to rounding
        each = {"rmse": np.sqrt(mean_square), "mae": _mean(W, sizes).T, "r2": 1 - _ratio(mean_square, spread)}
        return _with_means(truth, each)

    return measure


def _ratio(above: NDArray, below: NDArray) -> NDArray:
    """above / below, NaN where below is 0."""
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)


def _nanmean(values: NDArray) -> NDArray:
    """Mean over the classes for which it is defined, NaN where there are none: (R, C) -> (R,)."""
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0).sum(1), defined.sum(1))
