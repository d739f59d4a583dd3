"""A trained network as the plain keras.Sequential that people know, on any engine; nothing of deltarule is in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from backends import BackendError, get, weights
from backends.base import NDArray
from backends.spec import Dense, Layer, Model, Trial

Parameters = dict[str, NDArray]

# Keras' name of each activation; `approximate` of its gelu is False by default.
NAMES = {
    "sigmoid": "sigmoid", "tanh": "tanh", "relu": "relu", "identity": "linear", "elu": "elu", "selu": "selu", "gelu": "gelu",
    "silu": "silu", "softplus": "softplus",
}  # fmt: skip
# Of the largest output. The engines' own functions are not exact in float64: TensorFlow's gelu to 5e-9, tanh on JAX to 1e-7.
TOLERANCE = 1e-5


def to_keras(trial: Trial, flat: NDArray) -> keras.Sequential:
    """Input, Dense, activations and Dropout with the weights (P,) in place; not compiled.

    Takes rows (n, I) of the weights' type, preprocessed as the training rows were, and gives outputs before sigmoid or
    softmax (n, O), as Keras' losses want them with from_logits=True. Dropout draws from Keras' own generator. Raises
    BackendError if the model, once built, does not predict what the reference predicts.
    """
    parameters, dtype = weights.unpack(trial, flat), flat.dtype.name
    layers = [keras.Input((trial.inputs,), dtype=dtype), *_noise(trial, 0, dtype)]
    for number, layer in enumerate(trial.layers):
        hidden = number < len(trial.model.hidden)
        layers += LAYERS[layer.kind](layer, trial.model if hidden else None, trial.seed, dtype)
        layers += _noise(trial, number + 1, dtype) if hidden else []
    model = keras.Sequential(layers)
    model.set_weights([parameters[f"layers.{n}.{name}"] for n, layer in enumerate(trial.layers) for name in layer.parameters()])
    _check(model, trial, flat)
    return model


def save(trial: Trial, flat: NDArray, stem: Path) -> Path:
    """Write `to_keras`' model as STEM.keras; keras.saving.load_model reads it, on any engine, in its safe mode."""
    path = stem.with_name(f"{stem.name}.keras")
    path.parent.mkdir(parents=True, exist_ok=True)
    to_keras(trial, flat).save(path)
    return path


def _noise(trial: Trial, place: int, dtype: str) -> list[Any]:
    """With a seed, so that no random numbers of the caller's are drawn for one."""
    p = trial.dropout[place]
    return [keras.layers.Dropout(p, seed=trial.seed + place, dtype=dtype)] if p else []


def _dense(layer: Dense, model: Model | None, seed: int, dtype: str) -> list[Any]:
    """With the activation of a hidden layer. Keras stores a weight as (inputs, outputs), as we do."""
    leaky = model is not None and model.activation == "leaky_relu"
    name = NAMES[model.activation] if model is not None and not leaky else "linear"
    start = keras.initializers.GlorotUniform(seed)
    dense = keras.layers.Dense(layer.outputs, name, kernel_initializer=start, dtype=dtype)
    return [dense, keras.layers.LeakyReLU(model.slope, dtype=dtype)] if leaky and model is not None else [dense]


LAYERS: dict[str, Callable[[Layer, Model | None, int, str], list[Any]]] = {"dense": _dense}


def _check(model: keras.Sequential, trial: Trial, flat: NDArray) -> None:
    """On a few rows."""
    X = np.linspace(-2, 2, 8 * trial.inputs, dtype=flat.dtype).reshape(trial.inputs, 8).T
    reference = get("reference").stack([trial])
    reference.load({"weights": flat[None]})
    expected, found = reference.predict(X)[0], keras.ops.convert_to_numpy(model(X))
    gap = np.abs(found - expected).max() / max(1.0, np.abs(expected).max())
    if not gap <= TOLERANCE:
        raise BackendError(
            f"the keras.Sequential must predict what the reference predicts, but its outputs differ by {gap:.2g} of the largest "
            f"(allowed {TOLERANCE:g}), keras {keras.__version__} on {keras.backend.backend()}; use predict, which needs none"
        )
