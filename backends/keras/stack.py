"""A stack on Keras, whichever engine, and the backend that makes it.

Compiled computations are lent from stack to stack.
"""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from backends import losses, weights
from backends.base import Backend, Data, Gradients, Machine, NDArray, Signals, Stack, State, check_single, threads_for
from backends.keras.network import to_keras
from backends.keras.program import Program, columns, noisy_places
from backends.spec import Trial

Tensor = Any
PROBE_ROWS = 1024
PREDICT_ROWS = 8192  # rows of a large X that are on the device at once
# Noise is made for several steps at once: 14 integer operations a step cost more to start than to carry out.
# 2^18 numbers (1 MB) stay in the cache of a core.
NOISE_NUMBERS = 2**18
KEPT_PROGRAMS = 8  # TensorFlow gives back little of the 5 MB that each new structure costs, whoever keeps it


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
            d = d[:, :PROBE_ROWS, : trials[0].outputs]
            self._valid, self._probed = self._put(self._valid), (self._put(X[:, :PROBE_ROWS]), self._put(d))

    @abstractmethod
    def _put(self, array: NDArray) -> Tensor:
        """Onto the device, in the stack's type; a copy."""

    def _rebuild(self) -> None:
        """A program for these trials, with their initial weights."""
        if self._give_back is not None:
            self._give_back()
        self.program, self._give_back = _lend(self)
        self.load({"weights": weights.initial(self.trials)})

    def _noise_block(self, batch: int) -> int:
        """For how many steps noise is made at once."""
        units = sum(units for units, on in zip(self.program.units, self.program.noisy, strict=True) if on)
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
        return Signals(*(np.array(part) for part in self.program.probe(*map(self._own, self._probed))))

    def weights(self) -> NDArray:
        return _copy(self.program.network.flat)

    def state(self) -> State:
        return {"weights": self.weights(), **{f"slot.{name}": _copy(slot) for name, slot in self.program.slots.items()}}

    def load(self, state: State) -> None:
        """Slots that the state lacks start at 0."""
        self.program.network.flat.assign(self._put(state["weights"]))
        for name, slot in self.program.slots.items():
            slot.assign(self._put(state.get(f"slot.{name}", np.zeros(slot.shape))))

    def loss_and_gradients(self, flat: NDArray, X: NDArray, y: NDArray, noise: NDArray | None) -> Gradients:
        """The same gradient and the same penalty as in `run`."""
        first = self.trials[0]
        d = self._put(losses.targets(first.task, y, first.outputs))
        logits, loss, omega, gradient, deltas = self.program.gradients(self._put(flat), self._put(X), d, noise)
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
        stack.trials[0].structure(), len(stack.trials), tuple(name for name, _, _ in stack.groups), len(stack.seeds) == 1,
        len(stack.seeds) == len(stack.trials), noisy_places(stack), stack.penalised, stack.class_weights is not None,
        columns(stack),
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


class KerasBackend(Backend):
    """Keras 3 on one device of one engine."""

    stack_kind: ClassVar[type[KerasStack]]

    def stack(self, trials: Sequence[Trial], data: Data | None = None, machine: Machine | None = None) -> Stack:
        """K networks. An engine fixes its threads when it first computes: later stacks take what there is."""
        machine = machine or Machine()
        check_single(self.name, trials, data, machine)
        self.start(threads_for(trials, machine))
        return self.stack_kind(trials, data, machine)

    @abstractmethod
    def start(self, threads: int) -> None:
        """Have the engine compute on so many threads, unless it has computed already."""

    def save(self, trial: Trial, flat: NDArray, stem: Path) -> Path:
        """`to_keras`' model as STEM.keras; keras.saving.load_model reads it, on any engine, in its safe mode."""
        path = stem.with_name(f"{stem.name}.keras")
        path.parent.mkdir(parents=True, exist_ok=True)
        to_keras(trial, flat).save(path)
        return path
