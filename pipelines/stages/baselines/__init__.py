"""Simple models on the rows of a network: what is it worth beside them?

The constant (the majority class, or the mean), the network without hidden layers, and
scikit-learn's HistGradientBoosting. They learn from training rows alone, and are judged on the
rows that the network is judged on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from backends.spec import NDArray, Trial
from pipelines.data import Part
from pipelines.spec import Experiment, SpecError, higher_is_better
from pipelines.spec.blocks import HALF, Validation
from pipelines.stages import metrics
from pipelines.stages.baselines.models import CONSTANT, Outputs, models
from pipelines.stages.folds import over_folds
from pipelines.stages.metrics import Truth, choose_threshold
from pipelines.stages.networks import ROWS_AT_ONCE, Network
from pipelines.stages.paths import RunPaths
from pipelines.stages.reports import Judged

Metrics = Mapping[str, float]

# What bounds the time: training rows, of many inputs fewer.
ROWS, FEWEST, CELLS = 10_000, 500, 2_000_000
NAMED = 5  # classes that a sentence names
TRAIN_ON = "more train.epochs or another train.optimizer.learning_rate"


def beside(
    experiment: Experiment,
    networks: Sequence[Network],
    each: Sequence[Judged],
    found: Metrics,
    places: RunPaths,
    part: str,
) -> dict[str, Any]:
    """baselines.json: how the baselines do on these rows, and what must be said of the network.

    "by" is what the constant is compared by: the loss, but with class weights, which no loss here
    has, balanced accuracy. "rows": from how many training rows they learnt. Of folds the means.
    """
    by = "loss" if experiment.train.class_weights == "none" else "balanced_accuracy"
    asked = experiment.validation
    told = measured(asked, networks, each, places) if asked.baselines else {}
    classes = networks[0].about.classes
    lost, at_half = _lost(each), _lost(each, half=True)
    warned = list[str]()
    # The threshold may be the reason, not the network.
    if by == "loss" or at_half or not lost:
        warned += _no_better(found, told, by)
    warned += _never_predicted(lost, classes, _way(experiment, len(classes), not at_half))
    return {
        "by": by,
        "rows": max(min(_most(one.trial), one.about.rows["train"]) for one in networks),
        "baselines": told,
        "warnings": [f"On the {part} rows the network {one}." for one in warned],
        "notes": list(_decided(each[0].truth.threshold, classes)),
    }


def measured(validation: Validation, networks: Sequence[Network], each: Sequence[Judged], places: RunPaths) -> dict[str, Metrics]:
    """Every metric of each baseline; one that some fold does not have is left out.

    Each decides by a threshold of its own, by the spec's aim; the constant by 0.5.
    """
    found: dict[str, list[Metrics]] = {}
    for network, one in zip(networks, each, strict=True):
        learn, choose = (_some(network.about.open(places.data, part), _most(network.trial)) for part in ("train", "valid"))
        for name, outputs in models(network.trial, learn, choose):
            truth = one.truth
            if name == CONSTANT:
                truth = replace(truth, threshold=HALF)
            elif not isinstance(validation.threshold, float):
                own = Truth.of(network.about, choose.y)
                with suppress(SpecError):  # a precision that it does not have
                    chosen = choose_threshold(validation, own, outputs(choose.X))
                    truth = replace(truth, threshold=chosen)
            values = metrics.evaluate(truth, _all(outputs, one.X))
            found.setdefault(name, []).append(values)
    return {name: over_folds(values) for name, values in found.items() if len(values) == len(each)}


def _most(trial: Trial) -> int:
    """Rows that a baseline learns from at most."""
    return min(ROWS, max(FEWEST, CELLS // trial.inputs))


def _some(part: Part, most: int) -> Part:
    """So many of its rows, evenly taken, of those that count."""
    w = part.weights
    there = np.arange(len(part.rows)) if w is None else np.flatnonzero(w)
    if len(there) > most:
        there = there[np.arange(most) * len(there) // most]
    kept = None if w is None else w[there]
    return Part(part.X[there], part.y[there], part.rows[there], kept)


def _all(outputs: Outputs, X: NDArray) -> NDArray:
    """Some rows at a time, as large parts want it."""
    starts = range(0, len(X), ROWS_AT_ONCE)
    return np.concatenate([outputs(X[i : i + ROWS_AT_ONCE]) for i in starts])


# -- what must be said --


def _decided(threshold: float, classes: Sequence[str]) -> Iterator[str]:
    if threshold != HALF:
        yield f"A row is said to be {classes[1]} from a probability of {threshold:.4g} on."


def _no_better(found: Metrics, told: Mapping[str, Metrics], by: str) -> Iterator[str]:
    """Where the constant does as well."""
    simple = next(iter(told), "")
    there, own = told.get(simple, {}).get(by), found.get(by)
    if there is None or own is None:
        return
    if not (own > there if higher_is_better(by) else own < there):
        words = by.replace("_", " ")
        yield (
            f"is no better than the {simple} of the training rows "
            f"({words} {own:.4g}, there {there:.4g}); try {TRAIN_ON}, "
            "and look whether the inputs say anything about the target"
        )


def _lost(each: Sequence[Judged], half: bool = False) -> dict[int, int]:
    """Class that no row is said to be of (`half`: by 0.5) -> its rows."""
    if each[0].truth.task == "regression":
        return {}
    said = set[int]()
    for one in each:
        t = HALF if half else one.truth.threshold
        said |= {*metrics.decide(one.truth.task, one.outputs, t).tolist()}
    y = np.concatenate([one.truth.y for one in each])
    counts = enumerate(np.bincount(y).tolist())
    return {c: rows for c, rows in counts if rows and c not in said}


def _never_predicted(lost: Mapping[int, int], classes: Sequence[str], way: str) -> Iterator[str]:
    names = [f"{classes[c]} ({rows} rows)" for c, rows in lost.items()]
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield f"never predicts {', '.join(names[:NAMED])}{more}; try {way}"


def _way(experiment: Experiment, classes: int, at_half: bool) -> str:
    """`at_half`: with a threshold of 0.5 it predicts them."""
    threshold = experiment.validation.threshold
    if at_half:
        return f"validation.threshold: {HALF}, at which it does"
    if isinstance(threshold, float) and threshold != HALF:
        return "validation.threshold: f1"
    weighted = experiment.train.class_weights != "none"
    way = TRAIN_ON if weighted else "train.class_weights: balanced"
    return f"{way}, or validation.threshold: f1" if classes == 2 and threshold == HALF else way
