"""Dropout noise in Keras' integer operations, bit-equal to backends.draws.noise (which defines it)."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from backends.draws import MULTIPLY_1, MULTIPLY_2

Tensor = Any


def mix(x: Tensor) -> Tensor:
    """draws.mix: a bijection of 32-bit words, modulo 2³²."""
    x = ops.multiply(ops.bitwise_xor(x, _right(x, 16)), np.uint32(MULTIPLY_1))
    x = ops.multiply(ops.bitwise_xor(x, _right(x, 15)), np.uint32(MULTIPLY_2))
    return ops.bitwise_xor(x, _right(x, 16))


def noise(keys: Tensor, rows: Tensor | int, units: int) -> Tensor:
    """draws.noise: keys (..., 2) uint32 -> (..., rows, units) uint32, for the first `rows` places of the batch."""
    places = ops.cast(ops.expand_dims(ops.arange(rows, dtype="int32"), 1), "uint32")  # TensorFlow has no uint32 range
    at = ops.add(ops.multiply(places, np.uint32(units)), np.arange(units, dtype=np.uint32))
    first, second = keys[..., 0, None, None], keys[..., 1, None, None]
    return mix(ops.add(mix(ops.bitwise_xor(at, first)), second))


def kept(hashed: Tensor, thresholds: Tensor) -> Tensor:
    """True where a unit stays: not (hash >> 8) < threshold. hashed (U or K, rows, units), thresholds (K,)."""
    return ops.greater_equal(_right(hashed, 8), thresholds[:, None, None])


def _right(x: Tensor, bits: int) -> Tensor:
    return ops.right_shift(x, np.uint32(bits))
