"""The delta rule (Haykin, *Neural Networks and Learning Machines*, ch. 4), as docs/theory.md writes it.

One network, B rows. e = -∂ℓ/∂y is the error of a row, δ = -∂ℓ/∂v its local gradient; a batch takes the mean over rows.
Shapes: y (B, units), W (I, O), b (O,).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backends import draws
from backends.activations import ACTIVATIONS, numerics
from backends.base import NDArray
from backends.losses import predictions
from backends.spec import Parameters, Trial
from backends.weights import layout


class Pass(NamedTuple):
    """What a forward pass leaves behind, a layer an entry."""

    inputs: list[NDArray]  # y that entered the layer, after dropout
    fields: list[NDArray]  # v
    masks: list[NDArray | None]  # what multiplied the layer's inputs: 0, or 1/(1-p)


def parameters_of(trial: Trial, flat: NDArray) -> list[Parameters]:
    """The flat vector as one {name: array} a layer, as views."""
    layers: list[Parameters] = [{} for _ in trial.layers]
    for slot in layout(trial):
        layers[slot.layer][slot.name] = flat[slot.start : slot.stop].reshape(slot.shape)
    return layers


def forward(trial: Trial, layers: list[Parameters], X: NDArray, noise: NDArray | None = None) -> Pass:
    """From the inputs to the local fields of the output layer. `noise` (places, 2) keys the dropout; None is off."""
    activation, a = ACTIVATIONS[trial.model.activation], X.dtype.type(trial.model.slope)
    done, y = Pass([], [], []), X
    for place, (layer, parameters) in enumerate(zip(trial.layers, layers, strict=True)):
        if place:
            y = activation.value(numerics, done.fields[-1], a)
        mask = dropout_mask(trial.dropout[place], noise[place], y) if noise is not None else None
        y = y if mask is None else y * mask
        done.inputs.append(y)
        done.masks.append(mask)
        done.fields.append(layer.forward(y, parameters))
    return done


def dropout_mask(p: float, keys: NDArray, y: NDArray) -> NDArray | None:
    """0 for a dropped unit, 1/(1-p) for a kept one (Srivastava et al. 2014, inverted): (B, units), or None for p = 0."""
    if draws.threshold(p) == 0:
        return None
    dropped = (draws.noise(keys, len(y), y.shape[-1]) >> np.uint32(8)) < draws.threshold(p)
    return np.where(dropped, y.dtype.type(0), y.dtype.type(1 / (1 - p)))


def output_delta(trial: Trial, v: NDArray, d: NDArray) -> NDArray:
    """δ_j = e_j φ'(v_j): 2(d - y)/m for regression; d - y for sigmoid or softmax with cross-entropy."""
    if trial.task == "regression":
        return 2 * (d - v) / v.shape[-1]
    y = predictions(trial.task, v).reshape(v.shape)
    return d - y.astype(v.dtype)


def local_gradients(
    trial: Trial, layers: list[Parameters], done: Pass, d: NDArray, w: NDArray | None = None
) -> tuple[list[NDArray], list[Parameters]]:
    """δ of every layer, (B, units), and the mean of w·δ·y of every parameter, from the output back to the inputs.

    w (B,) are the weights of the rows; None: all 1.
    """
    activation, a = ACTIVATIONS[trial.model.activation], d.dtype.type(trial.model.slope)
    deltas, corrections = [output_delta(trial, done.fields[-1], d)], list[Parameters]()
    for number in reversed(range(len(layers))):
        error, correction = trial.layers[number].backward(deltas[0], done.inputs[number], layers[number], w)
        corrections.insert(0, correction)
        if number:
            mask = done.masks[number]
            error = error if mask is None else error * mask
            deltas.insert(0, activation.slope(numerics, done.fields[number - 1], a) * error)
    return deltas, corrections


def correction_vector(trial: Trial, corrections: list[Parameters]) -> NDArray:
    """The mean of w·δ·y of every weight and bias, in the layout of the flat weights: -∂E/∂θ, (P,)."""
    return np.concatenate([corrections[s.layer][s.name].ravel() for s in layout(trial)])
