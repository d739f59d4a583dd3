"""The networks of k folds, or the one without: which train as one stack, on which rows, and what their metrics come to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import backends
from backends.base import Data, Machine
from backends.spec import Trial
from backends.supervisor import Result, Watch, fit
from pipelines.data import About
from pipelines.spec import HIGHER_IS_BETTER, Experiment, SpecError, higher_is_better
from pipelines.spec.to_trial import check_memory
from pipelines.stages.metrics import Truth, check_metric, epoch_metrics

SD = "_sd"  # what the name of a metric ends in for its sd over the folds


def sizes(about: About, trial: Trial) -> tuple[int, int]:
    """Training and validation rows of the trial's fold."""
    rows = about.fold(trial.fold).rows
    return rows["train"], rows["valid"]


def alike(about: About, trials: Sequence[Trial]) -> list[list[int]]:
    """Places of the trials that may train as one stack: of one structure, which inputs are a part of, and folds of one size."""
    groups: dict[object, list[int]] = {}
    for place, trial in enumerate(trials):
        groups.setdefault((trial.structure(), sizes(about, trial)), []).append(place)
    return list(groups.values())


def open_rows(about: About, folder: Path, folds: Sequence[int | None]) -> tuple[Data, dict[int | None, Truth]]:
    """Training and validation rows of folds of one size, as one stack wants them; fold -> what its outputs are judged by."""
    data: dict[int | None, Data] = {}
    truths: dict[int | None, Truth] = {}
    for fold in dict.fromkeys(folds):
        one = about.fold(fold)
        learn, choose = (one.open(folder, part) for part in ("train", "valid"))
        data[fold] = Data(learn.X, learn.y, choose.X, choose.y, (fold,), learn.weights)
        truths[fold] = Truth.of(one, choose.y)
    return (next(iter(data.values())) if len(data) == 1 else Data.of_folds(data)), truths


def train_all(
    experiment: Experiment,
    about: About,
    folder: Path,
    trials: Sequence[Trial],
    *,
    watch: Watch | None = None,
    checkpoint: Path | None = None,
    width: int | None = None,
    halt: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Train each trial on the rows of its fold, in as few stacks as structure, sizes and `width` allow; in the order given.

    `watch` hears of places in `trials`. With `checkpoint`, all stacks are kept beside it, until the caller has their outs.
    `halt`: see `fit`.
    """
    monitor = experiment.train.early_stopping.monitor
    results: dict[int, Result] = {}
    for number, places in enumerate(_stacks(about, trials, width)):
        one = trials[places[0]]
        check_memory(one, about.fold(one.fold).rows, len(places), "the networks that train together (folds, seeds)")
        rows, truths = open_rows(about, folder, [trials[place].fold for place in places])
        file = checkpoint.with_stem(f"{checkpoint.stem}-{number + 1}") if checkpoint is not None and number else checkpoint
        found = fit(
            backends.get(experiment.train.backend),
            [trials[place] for place in places],
            rows,
            machine=Machine(experiment.train.devices, experiment.train.threads),
            metrics={fold: epoch_metrics(truth, monitor) for fold, truth in truths.items()},
            higher_is_better=HIGHER_IS_BETTER | ({monitor} if higher_is_better(monitor) else set()),
            watch=_of_places(watch, places),
            checkpoint=file,
            keep=True,
            halt=halt,
        )
        results |= dict(zip(places, found, strict=True))
    return [results[place] for place in range(len(trials))]


def _stacks(about: About, trials: Sequence[Trial], width: int | None) -> Iterator[list[int]]:
    """`alike`, in pieces of at most `width`, as even as can be."""
    for places in alike(about, trials):
        count = -(-len(places) // width) if width else 1
        size = -(-len(places) // count)
        yield from (places[start : start + size] for start in range(0, len(places), size))


def _of_places(watch: Watch | None, places: Sequence[int]) -> Watch | None:
    if watch is None:
        return None
    return lambda number, record: watch(places[number], record)


def check_monitor(experiment: Experiment, about: About, folder: Path, searched: Sequence[str] = ()) -> None:
    """Raises SpecError unless the validation rows of every fold define what is monitored, and what a study judges by."""
    for one in about.each:
        truth = Truth.of(one, one.open(folder, "valid").y)
        try:
            check_metric(truth, experiment.train.early_stopping.monitor)
            for name in searched:
                check_metric(truth, name, "search.metric")
        except ValueError as error:
            raise SpecError(f"{error}{'' if one.number is None else f' (fold {one.number})'}") from None


def over_folds(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over the folds, and its sd (ddof 1) as NAME_sd; of one network, its metrics as they are.

    A metric that the rows of some fold do not define is left out.
    """
    if len(found) == 1:
        return dict(found[0])
    means: dict[str, float] = {}
    for name in found[0]:
        if all(name in one for one in found):
            values = [one[name] for one in found]
            means |= {name: statistics.fmean(values), f"{name}{SD}": statistics.stdev(values)}
    return means
