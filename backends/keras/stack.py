"""A stack on Keras, whichever engine: what it holds, and how a computation that was compiled once is lent from stack to stack.

State and numbers live in Keras variables. The engine's trainer says how a chunk of steps is carried out on them.
"""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from backends import losses, weights
from backends.base import Data, Gradients, Machine, Signals, Stack, State
from backends.keras.network import Network, StackedActivation
from backends.keras.optimizer import StackedOptimizer
from backends.spec import Trial

NDArray = np.ndarray[Any, np.dtype[Any]]
Tensor = Any
PROBE_ROWS = 1024
PREDICT_ROWS = 8192  # rows of a large X that are on the device at once
# Noise is made for several steps at once: 14 integer operations a step cost more to start than to carry out.
# 2^18 numbers (1 MB) stay in the cache of a core.
NOISE_NUMBERS = 2**18
KEPT_PROGRAMS = 8  # TensorFlow gives back little of the 5 MB that each new structure costs, whoever keeps it


class Program:
    """The compiled computation of a stack: network, optimizer, graphs. Every number that trials may differ in is a variable."""

    activation: ClassVar[type[StackedActivation]] = StackedActivation

    # Of an engine: outputs (K, n, O) of rows X (K or 1, n, I); Signals of rows X and targets d; what `loss_and_gradients` gives.
    predict: Callable[[Tensor], Tensor]
    probe: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    gradients: Callable[..., tuple[Any, ...]]

    def __init__(self, stack: KerasStack) -> None:
        first, count = stack.trials[0], len(stack.trials)
        self.task, self.dtype, self.units = first.task, stack.dtype.name, [layer.inputs for layer in first.layers]
        self.outputs = [layer.outputs for layer in first.layers]
        self.penalised, self.clipping, self.sharing = stack.penalised, stack.clip is not None, stack.sharing
        self.noisy, self.weighed = stack.noisy, stack.class_weights is not None
        names = [name for name, _, _ in stack.groups]
        self.network = Network(first, count, names, stack.noisy, self.activation)
        self.optimizer = StackedOptimizer(first.train.optimizer, list(stack.hyper), self.dtype)
        self.optimizer.build([self.network.flat])
        shape = tuple(self.network.flat.shape) if self.penalised else (1, 1)
        self.l1, self.l2 = self._variable(shape), self._variable(shape)
        self.limit, self.class_weights = self._variable((count, 1)), self._variable((count, first.classes))
        self.seed_index = self._variable((count,), "int32")

    def _variable(self, shape: tuple[int, ...], dtype: str | None = None) -> keras.Variable:
        return keras.Variable(np.zeros(shape), dtype=dtype or self.dtype, trainable=False)

    def adopt(self, stack: KerasStack) -> None:
        """Take up the numbers of a stack's trials."""
        network = self.network
        for dropout, thresholds, scales in zip(network.dropouts, stack.thresholds, stack.scales, strict=True):
            if dropout is not None:
                dropout.thresholds.assign(thresholds.astype(np.uint32))
                dropout.scales.assign(scales)
        network.activation.slopes.assign(stack.slopes)
        network.activation.cuts.assign(np.array([start for _, start, _ in stack.groups[1:]], dtype=np.int32))
        self.seed_index.assign(stack.seed_index.astype(np.int32))
        for name, value in stack.hyper.items():
            self.optimizer.numbers[name].assign(value[:, None])
        if self.penalised:
            self.l1.assign(stack.l1)
            self.l2.assign(stack.l2)
        if stack.class_weights is not None:
            self.class_weights.assign(stack.class_weights)
        if stack.clip is not None:
            self.limit.assign(stack.clip[:, None])


class KerasStack(Stack):
    """K trials of one structure on a lent `Program`."""

    program_kind: ClassVar[type[Program]]
    program: Any  # the engine's kind

    def __init__(self, trials: Sequence[Trial], data: Data | None, machine: Machine) -> None:
        super().__init__(trials, data, machine)
        self._give_back: weakref.finalize[..., Any] | None = None
        self._rebuild()
        if data is not None:
            d = self.targets()
            self.X, self.d = self._put(data.X), self._put(d)
            self._valid, X, d = (part.reshape(len(data.folds), -1, part.shape[1]) for part in (data.X_valid, data.X, d))
            self._valid, self._probed = self._put(self._valid), (self._put(X[:, :PROBE_ROWS]), self._put(d[:, :PROBE_ROWS]))

    @abstractmethod
    def _put(self, array: NDArray) -> Tensor:
        """Onto the device, in the stack's type; a copy."""

    def _rebuild(self) -> None:
        """A program for these trials, with their initial weights."""
        count, seeds = len(self.trials), len(self.seeds)
        self.sharing = "all" if seeds == 1 else "none" if seeds == count else "some"
        self.noisy = tuple(bool(row.any()) for row in self.thresholds)
        if self._give_back is not None:
            self._give_back()
        self.program, self._give_back = _lend(self)
        self.load({"weights": weights.initial(self.trials)})

    def _noise_block(self, batch: int) -> int:
        """For how many steps noise is made at once."""
        units = sum(units for units, on in zip(self.program.units, self.noisy, strict=True) if on)
        return max(1, NOISE_NUMBERS // (len(self.seeds) * batch * max(units, 1)))

    def predict(self, X: NDArray | None = None) -> NDArray:
        """Block by block, so that memory does not grow with n."""
        rows = self._valid if X is None else X[None]
        starts = range(0, max(1, rows.shape[1]), PREDICT_ROWS)
        blocks = [rows] if len(starts) == 1 else [rows[:, start : start + PREDICT_ROWS] for start in starts]
        outputs = [np.asarray(self.program.predict(self._own(b) if X is None else self._put(b))) for b in blocks]
        return np.concatenate(outputs, axis=1)

    def _own(self, values: Tensor) -> Tensor:
        """What is of each fold, (F, ...), for each trial, (K, ...); (1, ...) where all trials have one fold."""
        chosen = self.region[: 1 if (self.region == self.region[0]).all() else None]
        return values if len(values) == 1 else keras.ops.take(values, chosen, axis=0)

    def probe(self) -> Signals:
        """On the first training rows."""
        return Signals(*(np.array(part) for part in self.program.probe(*map(self._own, self._probed))))

    def weights(self) -> NDArray:
        """(K, P)."""
        return _copy(self.program.network.flat)

    def state(self) -> State:
        """Weights and optimizer slots."""
        slots = self.program.optimizer.slots
        return {"weights": self.weights(), **{f"slot.{name}": _copy(slot) for name, slot in slots.items()}}

    def load(self, state: State) -> None:
        """Slots that the state lacks start at 0."""
        self.program.network.flat.assign(self._put(state["weights"]))
        for name, slot in self.program.optimizer.slots.items():
            slot.assign(self._put(state.get(f"slot.{name}", np.zeros(slot.shape))))

    def loss_and_gradients(self, flat: NDArray, X: NDArray, y: NDArray, noise: NDArray | None) -> Gradients:
        """The same gradient and the same penalty as in `run`."""
        first = self.trials[0]
        d = self._put(losses.targets(first.task, y, first.outputs))
        found = self.program.gradients(self._put(flat), self._put(X), d, noise)
        logits, loss, omega, gradient, deltas = found
        return Gradients(
            np.array(logits), np.array(loss), np.array(omega, np.float64), np.array(gradient),
            tuple(np.array(delta) for delta in deltas),
        )  # fmt: skip


def _copy(variable: keras.Variable) -> NDArray:
    """Keras 3.15's own `numpy` is, on JAX, a warning of NumPy 2.4."""
    return np.array(np.asarray(variable.value))


_idle: list[tuple[tuple[Any, ...], Program]] = []  # the one given back last stands last


def _lend(stack: KerasStack) -> tuple[Program, weakref.finalize[..., Any]]:
    """A program of the stack's structure, and what gives it back: when it is called, or else when the stack is gone."""
    key = (
        stack.trials[0].structure(), len(stack.trials), tuple(name for name, _, _ in stack.groups),
        stack.sharing, stack.noisy, stack.penalised, stack.class_weights is not None,
    )  # fmt: skip
    at = next((i for i, (known, _) in enumerate(_idle) if known == key), None)
    program = stack.program_kind(stack) if at is None else _idle.pop(at)[1]
    program.adopt(stack)
    give_back = weakref.finalize(stack, _take_back, key, program)
    give_back.atexit = False
    return program, give_back


def _take_back(key: tuple[Any, ...], program: Program) -> None:
    _idle.append((key, program))
    del _idle[:-KEPT_PROGRAMS]
