"""The networks of a trial, which of them train together, and a job: one stack, trained up to a rung.

A stack's members follow from trial numbers, structure and width alone: its arithmetic may depend on its width in the last
bits, and must not on who computes it. No test rows are ever prepared here, so none can be read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import backends
from backends.base import Data, Machine
from backends.spec import Trial
from backends.supervisor import Checkpoint, Supervisor
from backends.weights import layout
from pipelines.data import About, prepare, read
from pipelines.spec import Experiment, higher_is_better, trial
from pipelines.stages.folds import open_rows, sizes
from pipelines.stages.metrics import Truth, epoch_metrics

NDArray = np.ndarray[Any, np.dtype[Any]]
PARTS = ("train", "valid")


# -- rows --


class Dataset(NamedTuple):
    """Training and validation rows of one data block, whose hash is the name of their folder."""

    folder: Path
    about: About


class DatasetCache:
    """The rows of a study, made once for each data block."""

    def __init__(self, folder: Path, base: Path) -> None:
        """`folder` of the study; a relative data.source starts at `base`."""
        self.folder, self.base = (folder / "data").resolve(), base  # workers may stand in other folders
        self._made: dict[str, Dataset] = {}

    def of(self, spec: Experiment) -> Dataset:
        """The rows as this spec wants them. Raises DataError for a source that cannot be used."""
        block = spec.data.model_dump(mode="json")
        name = hashlib.sha256(json.dumps(block, sort_keys=True).encode()).hexdigest()[:12]
        if name not in self._made:
            place = self.folder / name
            about = prepare(read(spec.data, self.base), spec.data, place, PARTS)
            self._made[name] = Dataset(place, about)
        return self._made[name]


# -- networks --


@dataclass(frozen=True)
class State:
    """One network between two rungs: its progress as the supervisor counts it, and its rows of the stack's arrays.

    A network that ended has no arrays, and one that has not begun has a step of 0.
    """

    step: int = 0
    progress: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self.progress.get("reason", "running") == "running"


@dataclass
class Network:
    """One network of a study: seed and fold number `replica` of Optuna's trial `number`, and how it stands."""

    number: int
    replica: int
    dataset: Dataset
    trial: Trial
    sizes: tuple[int, int]  # training and validation rows of its fold
    state: State = State()

    @property
    def weights(self) -> int:
        """How many numbers it learns."""
        return layout(self.trial)[-1].stop


def networks_of(number: int, changes: dict[str, Any], base: Experiment, datasets: DatasetCache) -> list[Network]:
    """The networks of a trial, one a seed and fold. Raises SpecError or DataError for values that cannot be."""
    spec = base.drawn(changes)
    dataset = datasets.of(spec)
    folds = [trial(spec, about) for about in dataset.about.each]
    seeded = [fold.model_copy(update={"seed": fold.seed + i}) for i in range(base.search.seeds) for fold in folds]
    return [Network(number, replica, dataset, one, sizes(dataset.about, one)) for replica, one in enumerate(seeded)]


def stacks(networks: Sequence[Network], width: int) -> list[list[Network]]:
    """Groups of one structure, dataset and size of fold, at most `width` networks each, in an order that is fixed.

    Neighbours share their activation where possible: each further one splits every product of the stack.
    """

    def kind(network: Network) -> tuple[str, str, tuple[int, int]]:
        return network.dataset.folder.name, repr(network.trial.structure()), network.sizes

    def place(network: Network) -> tuple[Any, ...]:
        return *kind(network), network.trial.model.activation, network.number, network.replica

    found = []
    for _, group in groupby(sorted(networks, key=place), key=kind):
        members = list(group)
        size = -(-len(members) // -(-len(members) // width))  # as even as can be: 20 at most 16 wide are 10 and 10
        found += [members[start : start + size] for start in range(0, len(members), size)]
    return found


# -- a job --


@dataclass(frozen=True)
class Job:
    """One stack: trials of one structure, their states, and how far they are to go (None: to their end)."""

    backend: str
    machine: Machine
    data: str  # a folder with about.json, train/ and valid/
    metrics: tuple[str, ...]  # to be measured at each epoch, besides what is monitored
    trials: tuple[Trial, ...]
    states: tuple[State, ...]
    until_epoch: int | None

    @classmethod
    def of(cls, spec: Experiment, machine: Machine, stack: Sequence[Network], until: int | None) -> Job:
        """The loss is known without measuring, and so is the number of weights."""
        metrics = tuple(name for name in spec.search.metrics if name not in ("loss", "weights"))
        trials, states = tuple(one.trial for one in stack), tuple(one.state for one in stack)
        return cls(spec.train.backend, machine, str(stack[0].dataset.folder), metrics, trials, states, until)

    @property
    def key(self) -> str:
        """A hash that two jobs share if, and only if, they compute the same."""
        trials = [trial.model_dump(mode="json") for trial in self.trials]
        states = [(state.step, state.progress) for state in self.states]
        text = json.dumps([self.backend, self.data, self.metrics, trials, states, self.until_epoch], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def advance(job: Job) -> Checkpoint:
    """The stack at the rung, without its best weights: what a worker does, without Optuna and MLflow."""
    data, truths = _rows(job.data, tuple(dict.fromkeys(trial.fold for trial in job.trials)))
    monitor = job.trials[0].train.early_stopping.monitor
    supervisor = Supervisor(
        backends.get(job.backend),
        job.trials,
        data,
        machine=job.machine,
        metrics={fold: epoch_metrics(truth, monitor, *job.metrics) for fold, truth in truths.items()},
        higher_is_better={monitor} if higher_is_better(monitor) else (),
        resume=stack_states(job.states, job.trials),
        probing=False,
    )
    supervisor.run(until_epoch=job.until_epoch)
    reached = supervisor.checkpoint()
    arrays = {name: value for name, value in reached.arrays.items() if not name.startswith("best.")}
    return Checkpoint(reached.numbers, arrays)


@lru_cache(maxsize=4)
def _rows(folder: str, folds: tuple[int | None, ...]) -> tuple[Data, dict[int | None, Truth]]:
    """Read once a worker, not once a job."""
    return open_rows(About.load(Path(folder) / "about.json"), Path(folder), folds)


# -- states --


def stack_states(states: Sequence[State], trials: Sequence[Trial]) -> Checkpoint | None:
    """What a supervisor of these trials goes on from; None at the start. All must stand at the same step."""
    steps = {state.step for state in states}
    if steps == {0}:
        return None
    if len(steps) > 1 or not all(state.arrays for state in states):
        raise ValueError(f"networks of one stack must run and stand at one step, got steps {sorted(steps)}")
    members = sorted(range(len(trials)), key=lambda t: (trials[t].model.activation, t))
    arrays = {name: np.stack([states[m].arrays[name] for m in members]) for name in states[0].arrays}
    numbers = {
        "trials": [trial.model_dump(mode="json") for trial in trials],
        "step": states[0].step,
        "members": members,
        "progress": [state.progress for state in states],
    }
    return Checkpoint(numbers, arrays)


def split_state(reached: Checkpoint, stack: Sequence[Network]) -> None:
    """Gives each network its state; the supervisor was given them in this order."""
    numbers, members = reached.numbers, reached.numbers["members"]
    for place, (network, progress) in enumerate(zip(stack, numbers["progress"], strict=True)):
        running = progress["reason"] == "running"
        arrays = {name: value[members.index(place)] for name, value in reached.arrays.items()} if running else {}
        network.state = State(numbers["step"], progress, arrays)
