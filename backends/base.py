"""The contract of a backend, in prose, then in types.

A backend decides nothing. It is given trials, arrays and chunks of optimizer steps, and computes what docs/theory.md says they
mean. It offers a *stack*: K networks of one structure that train together, each as if it were alone. What happens
between chunks (order of rows, learning rates, stopping, best weights, divergence, history) is the supervisor's.

Only specs, NumPy arrays and flat weights (weights.py) cross this border. In a stack:

- the trials are sorted by activation, so that each activation is one slice of every product;
- trials of one seed and fold share their rows and their noise: U of these streams, `seed_index` (K,) says which is whose;
- folds lie behind one another in the data; the rows of a chunk are counted over all of them, so that a step gathers rows
  and knows no fold. Validation and probe of a trial are on the rows of its own fold, `region` (K,);
- losses are summed over trials and averaged over rows, so that no trial feels another; with class weights w_c or weights of
  rows w_i, ℓ and δ·y count w_i·w_c times in E and its gradient (losses.weighed), and B stays what they are divided by;
- a trial that ended has learning rate 0: its weights stay, and nobody reads them any more.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from backends import draws, weights
from backends.errors import BackendError
from backends.losses import targets
from backends.optimizers import RULES
from backends.spec import Trial, storage

NDArray = np.ndarray[Any, np.dtype[Any]]
State = dict[str, NDArray]
CHUNK_STEPS = 256  # of a chunk at most: bounds the memory of row indices and noise; no result depends on it


@dataclass(frozen=True)
class Data:
    """Training and validation rows. X (n, I); y as `losses.targets` takes it. Test rows never come here.

    Of F folds, `folds` are the numbers. They lie behind one another and are of one size: X (F·n, I), X_valid (F·m, I).
    `weights` (F·n,) say how much each training row counts, on any scale; None: all alike. Raises ValueError for folds of
    several sizes, and for weights that are negative or not finite, or all 0 in a fold.
    """

    X: NDArray
    y: NDArray
    X_valid: NDArray
    y_valid: NDArray
    folds: tuple[int | None, ...] = (None,)
    weights: NDArray | None = None

    def __post_init__(self) -> None:
        for what, rows in (("training", len(self.X)), ("validation", len(self.X_valid))):
            if rows % len(self.folds):
                raise ValueError(f"{len(self.folds)} folds must have equally many {what} rows, got {rows} of all together")
        if self.weights is not None:
            w = self.weights.reshape(len(self.folds), -1)
            if self.weights.shape != (len(self.X),) or not (np.isfinite(w) & (w >= 0)).all() or not w.any(1).all():
                raise ValueError("weights must be one a training row, each finite and at least 0, and not all 0 in a fold")

    @property
    def rows(self) -> int:
        """Training rows of one fold: n."""
        return len(self.X) // len(self.folds)

    @property
    def rows_valid(self) -> int:
        """Validation rows of one fold: m."""
        return len(self.X_valid) // len(self.folds)

    @staticmethod
    def of_folds(folds: Mapping[int | None, Data]) -> Data:
        """The rows of folds of one size, by number."""
        one = list(folds.values())
        if len({(data.X.shape, data.X_valid.shape) for data in one}) > 1:
            raise ValueError("folds of one stack must have equally many rows and inputs")
        X, y, X_valid, y_valid = (
            np.concatenate([getattr(data, name) for data in one]) for name in ("X", "y", "X_valid", "y_valid")
        )
        given = [data.weights for data in one if data.weights is not None]
        if given and len(given) < len(one):
            raise ValueError("folds of one stack must all have weights of rows, or none")
        # Each on its own scale, so that none outweighs another.
        return Data(X, y, X_valid, y_valid, tuple(folds), np.concatenate(given) if given else None)


@dataclass(frozen=True)
class Machine:
    """What to compute on. `threads` "auto" is one thread for small nets, which lose tenfold to contention."""

    devices: int | Literal["auto"] = "auto"
    threads: int | Literal["auto"] = "auto"


class Chunk(NamedTuple):
    """S optimizer steps on whole batches of one size B, of one epoch."""

    epoch: int
    step: int  # of the first batch, counted from 0 over the whole run
    rows: NDArray  # (U, S, B) int64: training rows, for each stream
    noise: NDArray  # (U, S, places, 2) uint32: keys for draws.noise; place 0 is the inputs, i the outputs of hidden layer i
    rates: NDArray  # (K, S) float64: learning rates; 0 for a trial that ended


class Losses(NamedTuple):
    """What `run` saw, as trained: at each step, before its update. All (K, S)."""

    loss: NDArray  # E, the mean over the rows of the batch, each times its weight, float64
    penalty: NDArray  # λΩ, float64
    largest: NDArray | None = None  # max|g| as the optimizer takes it; None: not told


Report = Callable[[Chunk, Losses], None]


class Signals(NamedTuple):
    """docs/theory.md, "Activations": how the error signal fares, on the first min(n, 1024) of its training rows, dropout off."""

    delta: NDArray  # (K, layers) root mean square of δ over rows and units; the last one is the output layer's
    saturated: NDArray  # (K, hidden) share of (row, unit) with |φ'| < 0.05 · max|φ'|
    dead: NDArray  # (K, hidden) share of units with φ' = 0 on all these rows


class Gradients(NamedTuple):
    """What `loss_and_gradients` gives, for K trials on the same B rows."""

    logits: NDArray  # (K, B, O)
    loss: NDArray  # (K,) E, with class weights
    penalty: NDArray  # (K,) λΩ
    gradient: NDArray  # (K, P) of E + λΩ, before clipping
    delta: tuple[NDArray, ...]  # a layer: (K, B, units), δ = -∂ℓ/∂v of each row, without class weights


class Stack(ABC):
    """K trials of one structure, training together. Subclasses hold weights and optimizer slots on their device.

    The shared constructor works out what every adapter needs; a subclass calls it first and then uploads:
    `groups` [(activation, first trial, one past the last)], `slots` (layout of the flat weights), `l1`, `l2` (K, P),
    `slopes` (K,) of leaky_relu, `thresholds` and `scales` (places, K) of dropout, `streams` [(seed, fold)] and `seeds`, U of
    each, `seed_index` (K,) stream of each trial, `region` (K,) place of its fold in the data, `hyper` {name: (K,)} of the
    optimizer's free numbers, `clip` (K,) or None, `class_weights` (K, classes) or None where no trial has any.
    """

    def __init__(self, trials: Sequence[Trial], data: Data | None, machine: Machine) -> None:
        """`data` None gives a stack that can only `load`, `predict` and `loss_and_gradients`."""
        check_stackable(trials)
        self.trials, self.data, self.machine = tuple(trials), data, machine
        self._derive()

    def _derive(self) -> None:
        """Work out all that follows from `trials`; `keep` calls it again."""
        trials = self.trials
        first = trials[0]
        self.dtype = np.dtype(storage(first.train.precision))
        self.slots = weights.layout(first)
        self.l1, self.l2 = weights.penalties(trials)
        self.penalised = bool(self.l1.any() or self.l2.any())
        self.groups = activation_groups(trials)
        self.slopes = np.array([t.model.slope for t in trials], dtype=self.dtype)
        self.thresholds = np.array([[draws.threshold(p) for p in t.dropout] for t in trials], dtype=np.int64).T
        self.scales = np.array([[1 / (1 - p) for p in t.dropout] for t in trials]).T.astype(self.dtype)
        self.streams, self.seed_index = draws.streams(trials)
        self.seeds = [seed for seed, _ in self.streams]
        self.region = regions(trials, self.data)
        free = ("momentum", "weight_decay")
        optimizers = [t.train.optimizer for t in trials]
        self.hyper = {n: np.array([getattr(o, n) for o in optimizers], self.dtype) for n in free if hasattr(optimizers[0], n)}
        given = [t.class_weights for t in trials]
        ones = (1.0,) * first.classes
        self.class_weights = np.array([w or ones for w in given], self.dtype) if any(given) else None
        clips = [t.train.clip_norm for t in trials]
        self.clip = None if clips[0] is None else np.array(clips, dtype=self.dtype)

    def targets(self) -> NDArray:
        """Of all training rows, as `losses.weighed` wants them, in the type of the weights: (F·n, O), or (F·n, O + 1).

        The last column then holds w_i, scaled to mean 1 over the training rows of the fold.
        """
        assert self.data is not None
        d = targets(self.trials[0].task, self.data.y, self.trials[0].outputs, self.dtype)
        if self.data.weights is None:
            return d
        w = self.data.weights.astype(np.float64).reshape(len(self.data.folds), -1)
        w = w / w.max(1, keepdims=True)  # whose sum cannot overflow
        w *= self.data.rows / w.sum(1, keepdims=True)
        return np.concatenate([d, w.reshape(-1, 1).astype(self.dtype)], axis=1)

    def drive(self, chunks: Iterable[Chunk], report: Report) -> None:
        """Run chunks until there are no more, reporting each before asking for the next.

        A framework's loop may override it.
        """
        for chunk in chunks:
            report(chunk, self.run(chunk))

    @abstractmethod
    def run(self, chunk: Chunk) -> Losses:
        """Carry out the optimizer steps of a chunk."""

    @abstractmethod
    def predict(self, X: NDArray | None = None) -> NDArray:
        """Outputs before softmax or sigmoid, dropout off: (K, n, O). X (n, I), or None for the validation rows."""

    @abstractmethod
    def probe(self) -> Signals:
        """How the error signal fares now."""

    @abstractmethod
    def weights(self) -> NDArray:
        """The weights now, (K, P), as a copy."""

    @abstractmethod
    def state(self) -> State:
        """Everything that the next step depends on: {"weights": (K, P), "slot.NAME": (K, P), ...}, as copies."""

    @abstractmethod
    def load(self, state: State) -> None:
        """Take up a state; a stack that `data` was given to then continues to the same bits."""

    @abstractmethod
    def loss_and_gradients(self, flat: NDArray, X: NDArray, y: NDArray, noise: NDArray | None) -> Gradients:
        """For checking against the delta rule: `flat` (K, P), the same B rows for all trials, keys (U, places, 2) or None.

        y as `losses.targets` takes it. With `noise` None, dropout is off. Does not change the stack.
        """

    def keep(self, positions: Sequence[int]) -> None:
        """Go on with these trials alone, in this order. The default rebuilds from the state."""
        kept = {name: value[list(positions)] for name, value in self.state().items()}
        self.trials = tuple(self.trials[p] for p in positions)
        self._derive()
        self._rebuild()
        self.load(kept)

    def _rebuild(self) -> None:
        """Make what the device holds fit `trials` again, after `keep`."""
        raise NotImplementedError


class Backend(ABC):
    """A framework. Slots of optimizers are spelled alike everywhere, as in OPTIMIZER_SLOTS."""

    name: ClassVar[str]

    @abstractmethod
    def stack(self, trials: Sequence[Trial], data: Data | None = None, machine: Machine | None = None) -> Stack:
        """A stack with the trials' initial weights. Raises BackendError for what it cannot do on this machine."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Name -> version of what the numbers depend on."""

    @abstractmethod
    def devices(self) -> list[str]:
        """What it could compute on here, best first: "cuda:0", "cpu"."""

    def save(self, trial: Trial, flat: NDArray, stem: Path) -> Path | None:
        """Write a trained network, (P,), as the framework's own file, `stem` with its ending; None where there is none."""
        return None


OPTIMIZER_SLOTS = {name: rule.slots for name, rule in RULES.items()}


def regions(trials: Sequence[Trial], data: Data | None) -> NDArray:
    """Place of each trial's fold among those of the data, (K,); zeros without data.

    ValueError for a fold that is not there.
    """
    if data is None:
        return np.zeros(len(trials), dtype=np.int64)
    for trial in trials:
        if trial.fold not in data.folds:
            raise ValueError(f"fold must be one of the data's, {', '.join(map(str, data.folds))}, got {trial.fold}")
    return np.array([data.folds.index(trial.fold) for trial in trials])


def check_stackable(trials: Sequence[Trial]) -> None:
    """Raises ValueError unless the trials are of one structure and sorted by activation."""
    if not trials:
        raise ValueError("a stack needs at least one trial, got none")
    if len({trial.structure() for trial in trials}) > 1:
        raise ValueError("trials of one stack must share task, layers, optimizer kind, batch size, precision and clipping")
    names = [trial.model.activation for trial in trials]
    if len(list(groupby(names))) > len(set(names)):
        raise ValueError("trials of one stack must be sorted by activation")


def check_single(backend: str, trials: Sequence[Trial], data: Data | None, machine: Machine) -> None:
    """For backends of one device in full precision: raises BackendError for several, and for training in mixed precision.

    To predict, float32 weights are float32 weights.
    """
    if machine.devices not in ("auto", 1):
        raise BackendError(
            f"train.devices must be 1 with train.backend: {backend}, got {machine.devices}; "
            "set train.devices: 1, or train.backend: lightning"
        )
    precision = trials[0].train.precision
    if data is not None and storage(precision) != precision:
        raise BackendError(
            f"train.precision must be float32 or float64 for the {backend} backend, got {precision}; "
            "set train.precision: float32, or train.backend: lightning"
        )


def activation_groups(trials: Sequence[Trial]) -> tuple[tuple[str, int, int], ...]:
    """[(activation, first trial, one past the last)], in order."""
    groups, start = [], 0
    for name, members in groupby(trial.model.activation for trial in trials):
        stop = start + len(list(members))
        groups.append((name, start, stop))
        start = stop
    return tuple(groups)


def threads_for(trials: Sequence[Trial], machine: Machine) -> int:
    """One thread unless a step of one network is large: small ones run up to twenty times slower on two busy threads.

    How many train as one stack must not matter: with other threads sums are rounded otherwise.
    """
    if machine.threads != "auto":
        return machine.threads
    products = trials[0].train.batch_size * weights.layout(trials[0])[-1].stop
    if products < 2**26:
        return 1
    limit = os.environ.get("OMP_NUM_THREADS", "")  # as all numeric libraries take it
    if limit.isdecimal() and int(limit):
        return int(limit)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
