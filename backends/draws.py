"""Every random number of a run, as a function of its seed: initial weights, row order, dropout noise.

This NumPy code is the definition; a backend repeats `noise` in its framework's own integer operations, bit for bit.
There is no generator to seed, to share or to save: a number depends on where it is used, not on what was drawn before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from backends.spec import NDArray, Trial

# Domains keep the streams of one seed apart. They are part of the format: never renumber them.
WEIGHTS, ORDER, SPLIT, BOOTSTRAP = 1, 2, 3, 4
MULTIPLY_1, MULTIPLY_2 = 0x7FEB352D, 0x846CA68B  # "lowbias32", Wellons 2018: bias 0.17 of the ideal
WORD = 0xFFFFFFFF


def raw_words(seed: int, domain: int, index: int, count: int) -> NDArray:
    """`count` 64-bit words of Philox-4x64 (Salmon et al. 2011), keyed by (seed, domain, index).

    NumPy promises raw words.
    """
    key = np.array([seed, (domain << 48) | index], dtype=np.uint64)
    return np.random.Philox(key=key).random_raw(count)


def initial_weights(trial: Trial, layer: int) -> dict[str, NDArray]:
    """The parameters of one layer before training, in float64: uniform on ±b (docs/theory.md), biases 0.

    Under torch_uniform biases are drawn too, after the weights, as torch.nn.Linear does.
    """
    spec, b = trial.layers[layer], bound(trial, layer)
    shapes = spec.parameters()
    drawn: dict[str, NDArray] = {name: np.zeros(shape) for name, shape in shapes.items()}
    names = [
        *spec.penalised,
        *(name for name in shapes if name not in spec.penalised and trial.model.initializer == "torch_uniform"),
    ]
    words = raw_words(trial.seed, WEIGHTS, layer, sum(math.prod(shapes[name]) for name in names))
    for name in names:
        size = math.prod(shapes[name])
        unit, words = (words[:size] >> np.uint64(11)) * 2.0**-53, words[size:]
        drawn[name] = (b * (2 * unit - 1)).reshape(shapes[name])
    return drawn


def bound(trial: Trial, layer: int) -> float:
    """b of the uniform distribution of a layer's initial weights (Glorot & Bengio 2010, He et al. 2015)."""
    i, o, a = trial.layers[layer].inputs, trial.layers[layer].outputs, trial.model.slope
    squares = {
        "glorot_uniform": 6 / (i + o),
        "he_uniform": 6 / i,
        "he_uniform_leaky": 6 / ((1 + a * a) * i),
        "lecun_uniform": 3 / i,
        "torch_uniform": 1 / i,  # He's for leaky_relu with a = √5, which is what torch.nn.Linear.reset_parameters asks for
    }
    name: str = trial.model.initializer
    if name == "auto":
        last = layer == len(trial.layers) - 1
        name = "glorot_uniform" if last else _AUTO.get(trial.model.activation, "he_uniform")
    return math.sqrt(squares[name])


_AUTO = {  # "he_uniform" for the relu family, which is all others
    **dict.fromkeys(("sigmoid", "tanh", "identity"), "glorot_uniform"),
    "leaky_relu": "he_uniform_leaky",
    "selu": "lecun_uniform",
}


def row_order(seed: int, epoch: int, rows: int) -> NDArray:
    """The order of the training rows in an epoch (from 0): the stable argsort of one raw word a row. (rows,) int64."""
    return np.argsort(raw_words(seed, ORDER, epoch, rows), kind="stable")


def noise_keys(seeds: Sequence[int], steps: Sequence[int], places: int) -> NDArray:
    """Two words that key the noise of each (seed, step, place): (U, S, places, 2) uint32. Place 0 is the inputs."""
    s = np.array(seeds, dtype=np.uint64).astype(np.uint32)[:, None, None]
    t = np.array(steps, dtype=np.uint64).astype(np.uint32)[None, :, None]
    p = np.arange(places, dtype=np.uint32)[None, None, :]
    first = mix(mix(mix(s ^ np.uint32(0x9E3779B9)) + t) ^ (p * np.uint32(0x85EBCA6B)))
    second = mix(mix(mix(s + np.uint32(0x6A09E667)) ^ t) + (p * np.uint32(0xC2B2AE35)))
    return np.stack([first, second], axis=-1)


def mix(x: NDArray) -> NDArray:
    """A bijection of 32-bit words that spreads every bit over all: xorshift and multiply, modulo 2³²."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(MULTIPLY_1)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(MULTIPLY_2)
    return x ^ (x >> np.uint32(16))


def noise(keys: NDArray, rows: NDArray | int, units: int) -> NDArray:
    """The hash of each (row's place in the global batch, unit): keys (..., 2) -> (..., rows, units) uint32.

    `rows` is the number of rows of the batch, or the places of those that this process holds. A backend repeats exactly
    this: mix(mix((row·units + unit) ^ first) + second), in 32-bit integers that wrap.
    """
    places = np.arange(rows) if isinstance(rows, int) else rows
    at = (places.astype(np.uint32)[:, None] * np.uint32(units)) + np.arange(units, dtype=np.uint32)
    first, second = keys[..., 0, None, None], keys[..., 1, None, None]
    return mix(mix(at ^ first) + second)


def threshold(p: float) -> int:
    """A unit is dropped iff (hash >> 8) < ⌊p·2²⁴⌋, in integers."""
    return math.floor(p * 2**24)


def streams(trials: Sequence[Trial]) -> tuple[list[tuple[int, int | None]], NDArray]:
    """(seed, fold) of the trials of a stack without repetition, in order of appearance, and for each trial its place there."""
    distinct = list(dict.fromkeys((trial.seed, trial.fold) for trial in trials))
    return distinct, np.array([distinct.index((trial.seed, trial.fold)) for trial in trials])
