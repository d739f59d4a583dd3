"""The computation of a stack, compiled once and lent from stack to stack: network, optimizer, graphs.

Every number that trials may differ in is a variable, so that another stack of the same structure needs no new trace. What is
here is the same on every engine; an engine adds its loop over steps, and how it differentiates (tensorflow.py, jax.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np

from backends import losses
from backends.keras.network import Network, StackedActivation, clipped, largest_of, penalty
from backends.keras.noise import noise
from backends.optimizers import RULES

if TYPE_CHECKING:
    from backends.base import Stack

Tensor = Any
Weights = list[Tensor]  # (K, n) each: pieces of (K, P), or all in one


class Program:
    """Weights, slots and numbers of K trials as Keras variables, and what is computed with them."""

    activation: ClassVar[type[StackedActivation]] = StackedActivation
    xp: ClassVar[Any] = keras.ops  # the operations of losses
    divided: ClassVar[bool] = False  # whether weights are differentiated and moved piece by piece

    # Of an engine: outputs (K, n, O) of rows X (K or 1, n, I); Signals of rows X and targets d; what `loss_and_gradients` gives.
    predict: Callable[[Tensor], Tensor]
    probe: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    gradients: Callable[..., tuple[Any, ...]]

    def __init__(self, stack: Stack) -> None:
        first, count = stack.trials[0], len(stack.trials)
        self.task, self.dtype, self.spec = first.task, stack.dtype.name, first.train.optimizer
        self.units, self.outputs = [layer.inputs for layer in first.layers], [layer.outputs for layer in first.layers]
        self.noisy = noisy_places(stack)
        self.shared = len(stack.seeds) in (1, count)  # rows and noise need not be picked for each trial
        self.penalised, self.clipping, self.weighed = stack.penalised, stack.clip is not None, stack.class_weights is not None
        names = [name for name, _, _ in stack.groups]
        self.network = Network(first, count, names, self.noisy, self.activation)
        shape = tuple(self.network.flat.shape)
        self.slots = {name: self._variable(shape) for name in RULES[self.spec.name].slots}
        self.numbers = {name: self._variable((count, 1)) for name in stack.hyper}
        self.l1, self.l2 = (self._variable(shape if self.penalised else (1, 1)) for _ in range(2))
        self.limit, self.class_weights = self._variable((count, 1)), self._variable((count, first.classes))
        self.seed_index = self._variable((count,), "int32")
        self.columns = columns(stack)

    def _variable(self, shape: tuple[int, ...], dtype: str | None = None) -> keras.Variable:
        return keras.Variable(np.zeros(shape), dtype=dtype or self.dtype, trainable=False)

    def adopt(self, stack: Stack) -> None:
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
            self.numbers[name].assign(value[:, None])
        if self.penalised:
            self.l1.assign(stack.l1)
            self.l2.assign(stack.l2)
        if stack.class_weights is not None:
            self.class_weights.assign(stack.class_weights)
        if stack.clip is not None:
            self.limit.assign(stack.clip[:, None])

    # -- of an engine --

    def _differentiate(self, function: Callable[[list[Tensor]], Any], at: list[Tensor]) -> tuple[list[Tensor], Any]:
        """Of `function(at)`, which is (a number, anything): the number's gradients, and the other."""
        raise NotImplementedError

    def _pick(self, values: Tensor, index: Tensor) -> Tensor:
        """values[index], along the first axis."""
        raise NotImplementedError

    # -- in compiled code --

    def _to_trials(self, values: Tensor) -> Tensor:
        """What is the same for all trials of a seed, (U, ...) -> (K, ...); left (1, ...) where one seed serves all."""
        return values if self.shared else self._pick(values, self.seed_index.value)

    def _divided(self, flat: Tensor) -> Weights:
        return self.network.pieces(flat) if self.divided else [flat]

    def _pieces(self, theta: Weights) -> list[Tensor]:
        return theta if self.divided else self.network.pieces(theta[0])

    def _lambdas(self, values: keras.Variable) -> list[Tensor]:
        """Of each of the weights: (K, P), or one λ a piece and trial."""
        return [values.value[:, span.start, None] for span in self.network.spans] if self.divided else [values.value]

    def _backward(self, theta: Weights, x: Tensor, d: Tensor, masks: Sequence[Tensor] | None) -> tuple[Any, ...]:
        """E (K,) float64, λΩ (K,), the gradient of E + λΩ, divided as `theta`, and the outputs."""
        xp, classes = self.xp, self.class_weights.value if self.weighed else None
        targets, w = losses.weighed(xp, self.task, d, self.outputs[-1], classes)

        def total(theta: Weights) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            logits = self.network.fields(self._pieces(theta), x, masks)[-1]
            each = losses.row_losses(xp, self.task, logits, targets)
            each = each if w is None else each * w
            # Sum over trials: a mean would divide every trial's gradient by K.
            return xp.sum(xp.mean(each, -1)), (each, logits)

        gradients, (each, logits) = self._differentiate(total, theta)
        omega = xp.zeros(theta[0].shape[:1], self.dtype)
        if self.penalised:
            parts = [penalty(*part) for part in zip(theta, self._lambdas(self.l1), self._lambdas(self.l2), strict=True)]
            omega = sum((part for part, _ in parts), omega)
            gradients = [g + more for g, (_, more) in zip(gradients, parts, strict=True)]
        return xp.mean(xp.cast(each, "float64"), -1), omega, gradients, logits

    def _deltas(self, theta: Weights, x: Tensor, d: Tensor, masks: Sequence[Tensor] | None) -> tuple[list[Tensor], list[Tensor]]:
        """δ = -∂ℓ/∂v of each row, and v, of each layer: (K, B, units). A push is added to v, so the slope is the same."""

        def total(pushes: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            fields = self.network.fields(self._pieces(theta), x, masks, pushes)
            return self.xp.sum(losses.row_losses(self.xp, self.task, fields[-1], d)), fields

        still = [self.xp.zeros((theta[0].shape[0], keras.ops.shape(x)[1], units), self.dtype) for units in self.outputs]
        slopes, fields = self._differentiate(total, still)
        return [-slope for slope in slopes], fields

    def _moved(self, state: list[Weights], gradients: Weights, rates: Tensor, corrected: Tensor) -> tuple[list[Weights], Tensor]:
        """One optimizer step: [weights, slot, ...] of pieces (K, n), rates (K, 1), corrected (2,); and max|g| (K,)."""
        numbers = {name: number.value for name, number in self.numbers.items()}
        numbers |= {"correction1": corrected[0], "correction2": corrected[1]}
        if self.clipping:
            gradients = clipped(gradients, self.limit.value)
        moved = []
        for g, theta, *slots in zip(gradients, *state, strict=True):
            named = dict(zip(self.slots, slots, strict=True))
            theta, named = RULES[self.spec.name].step(self.xp, self.spec, theta, g, named, rates, numbers)
            moved.append([theta, *(named[name] for name in self.slots)])
        return [list(pieces) for pieces in zip(*moved, strict=True)], largest_of(gradients)[:, 0]

    def _gradients(self, flat: Tensor, X: Tensor, d: Tensor, keys: Tensor | None) -> tuple[Any, ...]:
        """Outputs, E, λΩ, the gradient (K, P) as a step takes it, and δ of each layer, for the same rows in all trials."""
        masks = None
        if keys is not None:
            masks = [self._to_trials(noise(keys[:, i], len(X), units)) for i, units in enumerate(self.units)]
        theta = self._divided(flat)
        loss, omega, gradients, logits = self._backward(theta, X[None], d[None], masks)
        deltas, _ = self._deltas(theta, X[None], d[None], masks)
        return logits, loss, omega, self.xp.concatenate(gradients, axis=1), deltas


def noisy_places(stack: Stack) -> tuple[bool, ...]:
    """At which places any trial has dropout; place 0 is the inputs."""
    return tuple(bool(row.any()) for row in stack.thresholds)


def columns(stack: Stack) -> int:
    """Of the targets that `run` takes: an output each, and one more where rows have weights."""
    weighted = stack.data is not None and stack.data.weights is not None
    return stack.trials[0].layers[-1].outputs + weighted
