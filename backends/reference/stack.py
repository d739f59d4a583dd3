"""A stack that simply loops over its trials, which makes it an independent oracle for stacking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backends import losses, weights
from backends.activations import ACTIVATIONS, numerics
from backends.base import OPTIMIZER_SLOTS, Chunk, Data, Gradients, Losses, Machine, Signals, Stack, State
from backends.optimizers import RULES, corrections
from backends.reference import delta
from backends.spec import NDArray, Trial

PROBE_ROWS = 1024


class ReferenceStack(Stack):
    """K networks, each trained alone."""

    def __init__(self, trials: Sequence[Trial], data: Data | None, machine: Machine) -> None:
        super().__init__(trials, data, machine)
        self.flat = weights.initial(trials)
        names = OPTIMIZER_SLOTS[trials[0].train.optimizer.name]
        self.optimizer = {name: np.zeros_like(self.flat) for name in names}
        if data is not None:
            self.X, self.X_valid = data.X.astype(self.dtype), data.X_valid.astype(self.dtype)
            self.d = self.targets()

    def run(self, chunk: Chunk) -> Losses:
        losses, largest = (np.zeros((2, *chunk.rates.shape)), np.zeros(chunk.rates.shape, self.dtype))
        with np.errstate(all="ignore"):  # a trial may diverge; the supervisor sees it in the losses
            for k in range(len(self.trials)):
                for s in range(chunk.rates.shape[1]):
                    losses[0, k, s], losses[1, k, s], largest[k, s] = self._step(k, s, chunk)
        return Losses(losses[0], losses[1], largest)

    def _step(self, k: int, s: int, chunk: Chunk) -> tuple[float, float, Any]:
        """One optimizer step of one trial; E and λΩ before it, and max|g|."""
        trial, u = self.trials[k], self.seed_index[k]
        rows = chunk.rows[u, s]
        loss, penalty, g, _, _ = self._gradient(k, self.flat[k], self.X[rows], self.d[rows], chunk.noise[u, s])
        optimizer = trial.train.optimizer
        slots = {name: slot[k] for name, slot in self.optimizer.items()}
        eta = self.dtype.type(chunk.rates[k, s])
        numbers = {name: values[k] for name, values in self.hyper.items()}
        numbers["correction1"], numbers["correction2"] = corrections(optimizer, chunk.step + s, 1)[0].astype(self.dtype)
        step, g = RULES[optimizer.name].step, self._clipped(k, g)
        self.flat[k], slots = step(numerics, optimizer, self.flat[k], g, slots, eta, numbers)
        for name, value in slots.items():
            self.optimizer[name][k] = value
        return loss, penalty, np.abs(g).max()

    def _gradient(self, k: int, flat: NDArray, X: NDArray, d: NDArray, noise: NDArray | None) -> tuple[Any, ...]:
        """E, λΩ, the gradient of E + λΩ (P,), δ of every layer, and the outputs."""
        trial = self.trials[k]
        layers = delta.parameters_of(trial, flat)
        done = delta.forward(trial, layers, X, noise)
        classes = None if self.class_weights is None else self.class_weights[k, None]
        d, w = losses.weighed(numerics, trial.task, d, trial.outputs, classes)
        w = w if w is None or classes is None else w[0]
        deltas, corrections = delta.local_gradients(trial, layers, done, d, w)
        # Δw = η·(mean of w·δ·y) is gradient descent, so the gradient of E is its negative.
        g = -delta.correction_vector(trial, corrections)
        g = g + self.l1[k] * np.sign(flat) + 2 * self.l2[k] * flat
        each = losses.row_losses(numerics, trial.task, done.fields[-1], d)
        each = each if w is None else w * each
        loss = each.mean(dtype=np.float64)  # a sum of float32 numbers may overflow
        penalty = (self.l1[k] * np.abs(flat) + self.l2[k] * flat * flat).sum()
        return float(loss), float(penalty), g, deltas, done.fields[-1]

    def _clipped(self, k: int, g: NDArray) -> NDArray:
        """g · min(1, c/‖g‖). ‖g‖ is never formed: it may overflow."""
        if self.clip is None:
            return g
        _, exponent = np.frexp(np.abs(g).max())
        power = np.ldexp(self.dtype.type(1), exponent - 1)
        h = g / power
        s = np.sqrt((h * h).sum())
        return h * (self.clip[k] / s) if s > self.clip[k] / power else g

    def predict(self, X: NDArray | None = None) -> NDArray:
        given = None if X is None else X.astype(self.dtype)
        with np.errstate(all="ignore"):
            return np.stack([self._outputs(k, self._valid_rows(k) if given is None else given) for k in range(len(self.trials))])

    def _valid_rows(self, k: int) -> NDArray:
        """The validation rows of the trial's fold, (m, I)."""
        assert self.data is not None, "a stack without data has no validation rows; give X"
        start = self.region[k] * self.data.rows_valid
        return self.X_valid[start : start + self.data.rows_valid]

    def _outputs(self, k: int, X: NDArray) -> NDArray:
        layers = delta.parameters_of(self.trials[k], self.flat[k])
        return delta.forward(self.trials[k], layers, X).fields[-1]

    def probe(self) -> Signals:
        """On the first min(n, 1024) training rows of each trial's fold."""
        with np.errstate(all="ignore"):
            seen = [self._signals(k) for k in range(len(self.trials))]
        delta_rms, saturated, dead = (np.array(column) for column in zip(*seen, strict=True))
        return Signals(delta_rms, saturated, dead)

    def _signals(self, k: int) -> tuple[list[Any], list[Any], list[Any]]:
        trial, layers = self.trials[k], delta.parameters_of(self.trials[k], self.flat[k])
        assert self.data is not None
        start = self.region[k] * self.data.rows
        first = slice(start, start + min(self.data.rows, PROBE_ROWS))
        done = delta.forward(trial, layers, self.X[first])
        deltas, _ = delta.local_gradients(trial, layers, done, self.d[first, : trial.outputs])
        activation, a = ACTIVATIONS[trial.model.activation], self.slopes[k]
        slopes = [np.abs(activation.slope(numerics, v, a)) for v in done.fields[:-1]]
        return (
            [np.sqrt(np.mean(np.square(d, dtype=np.float64))) for d in deltas],
            [(s < 0.05 * activation.steepest).mean() for s in slopes],
            [(s == 0).all(axis=0).mean() for s in slopes],
        )

    def weights(self) -> NDArray:
        return self.flat.copy()

    def state(self) -> State:
        return {"weights": self.flat.copy(), **{f"slot.{n}": s.copy() for n, s in self.optimizer.items()}}

    def load(self, state: State) -> None:
        self.flat = state["weights"].astype(self.dtype)
        self.optimizer = {n: state[f"slot.{n}"].astype(self.dtype) for n in self.optimizer if f"slot.{n}" in state}

    def _rebuild(self) -> None:
        """Nothing is derived from the trials beside the arrays that `load` replaces."""

    def loss_and_gradients(self, flat: NDArray, X: NDArray, y: NDArray, noise: NDArray | None) -> Gradients:
        """The delta rule on B rows, for each trial with its own weights and noise."""
        d = losses.targets(self.trials[0].task, y, self.trials[0].outputs).astype(self.dtype)
        rows = X.astype(self.dtype)
        keys = [None if noise is None else noise[u] for u in self.seed_index]
        with np.errstate(all="ignore"):
            seen = [self._gradient(k, flat[k].astype(self.dtype), rows, d, keys[k]) for k in range(len(self.trials))]
        loss, penalty, gradient, deltas, logits = (list(column) for column in zip(*seen, strict=True))
        stacked = tuple(np.stack(layer) for layer in zip(*deltas, strict=True))
        return Gradients(np.stack(logits), np.array(loss), np.array(penalty), np.stack(gradient), stacked)
