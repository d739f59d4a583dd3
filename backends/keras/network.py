"""The network as Keras layers, for K trials at once: every weight has the trial as its first axis.

The weights of a stack are one variable (K, P), split at each use (its gradient is then one concatenation), so that
optimizer, clipping, penalty and checkpoint are single lines. Nothing here knows an engine. `to_keras` is the plain model that
people know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from backends import BackendError, get, weights
from backends.activations import ACTIVATIONS, Activation
from backends.base import NDArray
from backends.keras.noise import kept
from backends.spec import Dense, Model, Trial, storage

Tensor = Any
# Of a plain model's largest output. The engines' own functions are not exact in float64: TensorFlow's gelu to 5e-9, tanh on JAX
# to 1e-7.
TOLERANCE = 1e-5


class StackedDense(keras.layers.Layer):  # type: ignore[misc]
    """v = y W + b in every trial: y (K or 1, B, I), W (K, I, O), b (K, O) -> (K, B, O). It owns no weights."""

    def call(self, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The local fields v."""
        return ops.matmul(y, weight) + bias[:, None, :]

    @staticmethod
    def plain(layer: Dense, model: Model | None, seed: int, dtype: str) -> list[keras.layers.Layer]:
        """As people know it, with the activation of a hidden layer.

        Keras stores a weight as (inputs, outputs), as we do.
        """
        leaky = model is not None and model.activation == "leaky_relu"
        name = None if model is None or leaky or model.activation == "identity" else model.activation
        start = keras.initializers.GlorotUniform(seed)
        dense = keras.layers.Dense(layer.outputs, name, kernel_initializer=start, dtype=dtype)
        return [dense, keras.layers.LeakyReLU(model.slope, dtype=dtype)] if leaky and model else [dense]


class StackedActivation(keras.layers.Layer):  # type: ignore[misc]
    """φ(v), with another φ for each group of neighbouring trials."""

    xp: ClassVar[Any] = ops  # the operations of activations

    def __init__(self, names: Sequence[str], trials: int, dtype: str) -> None:
        """Where the groups are cut is a variable, so that another division costs no new trace."""
        super().__init__(dtype=dtype)
        self.names = tuple(names)
        self.slopes = self.add_weight(shape=(trials,), initializer="zeros", trainable=False, name="slopes")
        self.cuts = self.add_weight(shape=(len(names) - 1,), initializer="zeros", dtype="int32", trainable=False, name="cuts")
        self.built = True

    def call(self, v: Tensor) -> Tensor:
        """(K, B, units) -> (K, B, units)."""
        return self.each(v, lambda phi, part, a: phi.value(self.xp, part, a))

    def steepness(self, v: Tensor) -> Tensor:
        """|φ'(v)| / max|φ'|, (K, B, units)."""
        return self.each(v, lambda phi, part, a: ops.abs(phi.slope(self.xp, part, a)) / phi.steepest)

    def each(self, v: Tensor, function: Callable[[Activation, Tensor, Tensor], Tensor]) -> Tensor:
        """`function(φ, its trials' rows of v, their slopes (group, 1, 1))` of each group, as one tensor again."""
        slopes, chosen = self.slopes[:, None, None], [ACTIVATIONS[name] for name in self.names]
        if len(chosen) == 1:
            return function(chosen[0], v, slopes)
        groups = zip(chosen, ops.split(v, self.cuts), ops.split(slopes, self.cuts), strict=True)
        # The pieces have forgotten their shapes.
        return ops.reshape(ops.concatenate([function(*group) for group in groups]), (v.shape[0], -1, v.shape[-1]))


class StackedDropout(keras.layers.Layer):  # type: ignore[misc]
    """Srivastava et al. (2014), with given noise: y·1/(1-p) where a unit stays, 0 where it is dropped."""

    def __init__(self, trials: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.thresholds = self.add_weight(
            shape=(trials,), initializer="zeros", dtype="uint32", trainable=False, name="thresholds"
        )
        self.scales = self.add_weight(shape=(trials,), initializer="ones", trainable=False, name="scales")
        self.built = True

    def call(self, y: Tensor, hashed: Tensor) -> Tensor:
        """y (K or 1, B, units), the hash of each place (K or 1, B, units)."""
        return ops.where(kept(hashed, self.thresholds), y * self.scales[:, None, None], 0.0)


KINDS: dict[str, Any] = {"dense": StackedDense}


class Network(keras.Model):  # type: ignore[misc]
    """K networks of one structure. `network(X)` gives their outputs before softmax or sigmoid, dropout off."""

    def __init__(
        self,
        trial: Trial,
        trials: int,
        activations: Sequence[str],
        noisy: Sequence[bool],
        activation: type[StackedActivation] = StackedActivation,
    ) -> None:
        """`trial` gives the structure, `noisy` the places where any trial has dropout (0: the inputs)."""
        dtype = storage(trial.train.precision)
        super().__init__(dtype=dtype)
        self.spans = weights.layout(trial)
        self.flat = self.add_weight(shape=(trials, self.spans[-1].stop), initializer="zeros", name="flat")
        self.sums = [KINDS[layer.kind](dtype=dtype) for layer in trial.layers]
        self.activation = activation(activations, trials, dtype)
        self.dropouts = [StackedDropout(trials, dtype) if on else None for on in noisy]
        self.built = True

    def call(self, X: Tensor) -> Tensor:
        """X (n, I), the same rows for all, or (K or 1, n, I) -> (K, n, O)."""
        rows = X if len(X.shape) == 3 else ops.expand_dims(X, 0)
        return self.fields(self.pieces(ops.convert_to_tensor(self.flat)), rows)[-1]

    def fields(
        self,
        pieces: Sequence[Tensor],
        y: Tensor,
        noise: Sequence[Tensor] | None = None,
        pushes: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """The local fields v of each layer, the outputs last: weights as `pieces` gives them, y (K or 1, B, I).

        `noise`: the hash at each place, (K or 1, B, units), anything where no trial has dropout; None: dropout off.
        `pushes`: what is added to each v, (K, B, units), for an engine whose gradients are of inputs alone.
        """
        fields: list[Tensor] = []
        for place, (layer, parameters) in enumerate(zip(self.sums, self.parameters(pieces), strict=True)):
            if fields:
                y = self.activation(fields[-1])
            dropout = self.dropouts[place]
            if noise is not None and dropout is not None:
                y = dropout(y, noise[place])
            v = layer(y, **parameters)
            fields.append(v if pushes is None else v + pushes[place])
        return fields

    def pieces(self, flat: Tensor) -> list[Tensor]:
        """(K, P) -> (K, n) of each weight matrix and bias."""
        starts = np.array([span.start for span in self.spans[1:]], dtype=np.int32)
        return list(ops.split(flat, starts, axis=1))

    def parameters(self, pieces: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """name -> (K, ...) of each layer."""
        layers: list[dict[str, Tensor]] = [{} for _ in self.sums]
        for span, piece in zip(self.spans, pieces, strict=True):
            layers[span.layer][span.name] = ops.reshape(piece, (piece.shape[0], *span.shape))
        return layers


def penalty(flat: Tensor, l1: Tensor, l2: Tensor) -> tuple[Tensor, Tensor]:
    """λΩ = Σ λ1|W| + λ2 W² of each trial, (K,), and its gradient λ1 sign(W) + 2 λ2 W, (K, P). Biases have λ = 0."""
    # |W| = W sign(W), so both come from the same two products: large stacks are bound by passes over memory.
    first, second = l1 * ops.sign(flat), l2 * flat
    half = first + second
    return ops.sum(flat * half, axis=1), half + second


def clipped(gradients: Sequence[Tensor], limit: Tensor) -> list[Tensor]:
    """g·min(1, c/‖g‖) over all of a trial.

    Pieces (K, n), c (K, 1).
    """
    power = power_of_two(largest_of(gradients))
    scaled = [g / power for g in gradients]
    s = ops.sqrt(sum(ops.sum(h * h, axis=1, keepdims=True) for h in scaled))
    beyond, factor = s > limit / power, limit / s
    return [ops.where(beyond, h * factor, g) for h, g in zip(scaled, gradients, strict=True)]


def largest_of(gradients: Sequence[Tensor]) -> Tensor:
    """max|g| of each trial, (K, 1): pieces (K, n)."""
    peaks = [ops.max(ops.abs(g), axis=1, keepdims=True) for g in gradients]
    return ops.max(ops.concatenate(peaks, axis=1), axis=1, keepdims=True)


def power_of_two(x: Tensor) -> Tensor:
    """The largest that is no larger than x ≥ 0.

    By the bits of its exponent; 1 for 0.
    """
    word, digits = ("int64", 52) if keras.backend.standardize_dtype(x.dtype) == "float64" else ("int32", 23)
    exponent = ops.right_shift(ops.view(x, word), digits)
    return ops.where(x > 0, ops.view(ops.left_shift(exponent, digits), x.dtype), 1.0)


def to_keras(trial: Trial, flat: NDArray) -> keras.Sequential:
    """Input, Dense, activations and Dropout with the weights (P,) in place; not compiled.

    Takes rows (n, I) of the weights' type, preprocessed as the training rows were, and gives outputs before sigmoid or
    softmax (n, O), as Keras' losses want them with from_logits=True. Dropout draws from Keras' own generator. Raises
    BackendError if the model, once built, does not predict what the reference predicts, on a few rows.
    """
    parameters, dtype = weights.unpack(trial, flat), flat.dtype.name
    layers = [keras.Input((trial.inputs,), dtype=dtype)]
    for number, layer in enumerate(trial.layers):
        if p := trial.dropout[number]:  # with a seed, so that no random numbers of the caller's are drawn for one
            layers.append(keras.layers.Dropout(p, seed=trial.seed + number, dtype=dtype))
        hidden = number < len(trial.model.hidden)
        layers += KINDS[layer.kind].plain(layer, trial.model if hidden else None, trial.seed, dtype)
    model = keras.Sequential(layers)
    model.set_weights(list(parameters.values()))
    X = np.linspace(-2, 2, 8 * trial.inputs, dtype=flat.dtype).reshape(trial.inputs, 8).T
    reference = get("reference").stack([trial])
    reference.load({"weights": flat[None]})
    expected, found = reference.predict(X)[0], ops.convert_to_numpy(model(X))
    gap = np.abs(found - expected).max() / max(1.0, np.abs(expected).max())
    if not gap <= TOLERANCE:
        raise BackendError(
            f"the keras.Sequential must predict what the reference predicts, but its outputs differ by {gap:.2g} of the largest "
            f"(allowed {TOLERANCE:g}), keras {keras.__version__} on {keras.backend.backend()}; use predict, which needs none"
        )
    return model
