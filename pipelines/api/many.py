"""Many experiments at once: those of one structure train as one stack, which costs little more than one of them.

For what is compared side by side, as in examples/; nothing is chosen here.
The rows are training and validation rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import backends
from backends import weights
from backends.base import Machine
from backends.spec import Trial
from backends.supervisor import Record, Supervisor
from pipelines.data import About, prepare, read
from pipelines.project import project_of
from pipelines.spec import Experiment, SpecError, higher_is_better, trial
from pipelines.stages.folds import check_monitor, open_rows
from pipelines.stages.metrics import epoch_metrics

NDArray = np.ndarray[Any, np.dtype[Any]]
Weights = dict[str, NDArray]  # "layers.0.weight" (I, O), "layers.0.bias" (O,), ...; the last layer is the output layer
PARTS = ("train", "valid")


@dataclass(frozen=True)
class Trained:
    """One network of many: how it went, and its weights at three times."""

    experiment: Experiment
    start: Record  # delta_rms_1, ..., saturated_1, ..., dead_1, ... before the first step
    initial: Weights
    best: Weights | None  # of the best epoch; None where there is none, since it diverged at once
    last: Weights | None  # after the last epoch; None where it diverged
    best_epoch: int | None
    ended: str  # completed, early_stopping, diverged
    message: str  # one sentence: why it ended
    history: dict[str, list[float]]  # one value an epoch, as Run.history


@dataclass(frozen=True)
class _Member:
    """One experiment, as its stack needs it."""

    place: int  # among those that were given
    experiment: Experiment
    network: Trial
    folder: Path  # of its rows
    about: About

    @property
    def kind(self) -> tuple[object, ...]:
        """What the members of a stack share: rows, structure, machine, and what is monitored."""
        train = self.experiment.train
        return self.folder, self.network.structure(), train.backend, train.devices, train.threads, train.early_stopping.monitor


def train_many(
    experiments: Sequence[Experiment], *, width: int = 16, progress: Callable[[int, int], None] | None = None
) -> list[Trained]:
    """Train each experiment, in as few stacks of at most `width` networks as can be; in the order given.

    Of one structure are those that differ in seed, activation, penalties, dropout, learning rate, momentum or weight decay
    alone. `progress` hears, after each stack, how many networks are done, and of how many. A network that diverges is told of in
    its `ended`. Raises SpecError, DataError and BackendError.
    """
    done: dict[int, Trained] = {}
    with TemporaryDirectory() as folder:
        for members in _stacks(list(_members(experiments, Path(folder))), width):
            done |= _train(members)
            if progress is not None:
                progress(len(done), len(experiments))
    return [done[place] for place in range(len(experiments))]


def _members(experiments: Sequence[Experiment], folder: Path) -> Iterator[_Member]:
    """Each with its rows, which are prepared once for each data block."""
    base = project_of(Path())
    prepared: dict[str, tuple[Path, About]] = {}
    for place, experiment in enumerate(experiments):
        if experiment.data.split.folds is not None:
            raise SpecError("data.split.folds must be null here, since each experiment is one network; use deltarule.run")
        block = json.dumps(experiment.data.model_dump(mode="json"), sort_keys=True)
        if block not in prepared:
            rows = folder / str(len(prepared))
            prepared[block] = rows, prepare(read(experiment.data, base), experiment.data, rows, PARTS)
        rows, about = prepared[block]
        yield _Member(place, experiment, trial(experiment, about), rows, about)


def _stacks(members: Sequence[_Member], width: int) -> Iterator[list[_Member]]:
    """Neighbours share their activation where possible: each further one splits every product of the stack."""
    groups: dict[object, list[_Member]] = {}
    for member in members:
        groups.setdefault(member.kind, []).append(member)
    for group in groups.values():
        group.sort(key=lambda member: (member.network.model.activation, member.place))
        size = -(-len(group) // -(-len(group) // width))  # as even as can be: 20 at most 16 wide are 10 and 10
        yield from (group[start : start + size] for start in range(0, len(group), size))


def _train(members: Sequence[_Member]) -> dict[int, Trained]:
    """One stack: place -> how it went."""
    first = members[0]
    train, monitor = first.experiment.train, first.experiment.train.early_stopping.monitor
    check_monitor(first.experiment, first.about, first.folder)
    rows, truths = open_rows(first.about, first.folder, [None])
    last: dict[int, NDArray] = {}

    def keep_last(number: int, record: Record) -> bool:
        if supervisor.progress[number].reason != "running":  # this was its last epoch
            last[number] = supervisor.stack.weights()[supervisor.members.index(number)]
        return False

    supervisor = Supervisor(
        backends.get(train.backend),
        [member.network for member in members],
        rows,
        machine=Machine(train.devices, train.threads),
        metrics=epoch_metrics(truths[None], monitor),
        higher_is_better={monitor} if higher_is_better(monitor) else (),
        watch=keep_last,
    )
    signals, order = supervisor.stack.probe(), list(supervisor.members)
    supervisor.run()
    done = {}
    for number, (member, result) in enumerate(zip(members, supervisor.results(), strict=True)):
        network, position = member.network, order.index(number)
        start = {
            f"{name}_{layer}": float(value)
            for name, values in zip(("delta_rms", "saturated", "dead"), signals, strict=True)
            for layer, value in enumerate(values[position], start=1)
        }
        initial, best, final = weights.initial([network])[0], result.weights, last.get(number)
        names = result.history[0] if result.history else ()
        done[member.place] = Trained(
            member.experiment,
            start,
            weights.unpack(network, initial),
            None if best is None else weights.unpack(network, best),
            None if final is None else weights.unpack(network, final),
            result.best_epoch,
            result.reason,
            result.message,
            {name: [record[name] for record in result.history] for name in names},
        )
    return done
