"""Activations: each φ and φ' once, from elementary operations, so that every framework computes the same function.

The frameworks' own versions differ in their last bits, their slopes at 0 and their thresholds. `xp` is whatever module
carries the operations: `torch`, `keras.ops`, or `numerics` for NumPy. At v = 0 the left branch holds, and
exponents are clamped before a `where`, so that no branch that is not taken can overflow into a NaN gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

Array = Any
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934, 1.6732632423543772848  # Klambauer et al. 2017


def _erf(x: Array) -> Array:
    """The error function, in float64, returned in the type of `x`; NumPy has none."""
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype) if x.size else x


def _logsumexp(x: Array, axis: int) -> Array:
    """log Σ e^x along an axis, safe from overflow."""
    top = np.max(x, axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.sum(np.exp(x - top), axis))


# NumPy as the module of operations that activations, losses and optimizers are written against.
_NAMES = ("abs", "exp", "expm1", "log", "log1p", "max", "mean", "sqrt", "sum", "tanh", "where")
numerics = SimpleNamespace(**{name: getattr(np, name) for name in _NAMES}, erf=_erf, logsumexp=_logsumexp)


class Activation(NamedTuple):
    """`value(xp, v, a)` is φ(v), `slope(xp, v, a)` is φ'(v), `steepest` is max|φ'|; `a` is the slope of leaky_relu."""

    value: Callable[[Any, Array, Array], Array]
    slope: Callable[[Any, Array, Array], Array]
    steepest: float


def sigmoid(xp: Any, v: Array) -> Array:
    """1/(1+e^-v), with one exponential that cannot overflow."""
    z = xp.exp(xp.where(v > 0, -v, v))
    return xp.where(v > 0, 1.0, z) / (1.0 + z)


def softplus(xp: Any, v: Array) -> Array:
    """log(1 + e^v); its slope is the sigmoid, 1/2 at 0."""
    return xp.where(v > 0, v, 0.0) + xp.log1p(xp.exp(xp.where(v > 0, -v, v)))


def _exp_left(xp: Any, v: Array) -> Array:
    return xp.exp(xp.where(v > 0, 0.0, v))


def _expm1_left(xp: Any, v: Array) -> Array:
    return xp.expm1(xp.where(v > 0, 0.0, v))


def _normal_cdf(xp: Any, v: Array) -> Array:
    return 0.5 * (1.0 + xp.erf(v * math.sqrt(0.5)))


def _normal_pdf(xp: Any, v: Array) -> Array:
    return xp.exp(-0.5 * v * v) * (1 / math.sqrt(2 * math.pi))


def _step(xp: Any, v: Array, left: Any) -> Array:
    return xp.where(v > 0, 1.0 + 0.0 * v, left + 0.0 * v)


def _sigmoid_slope(xp: Any, v: Array, a: Array) -> Array:
    y = sigmoid(xp, v)
    return y * (1.0 - y)


def _tanh_slope(xp: Any, v: Array, a: Array) -> Array:
    y = xp.tanh(v)
    return 1.0 - y * y


def _silu_slope(xp: Any, v: Array, a: Array) -> Array:
    y = sigmoid(xp, v)
    return y * (1.0 + v * (1.0 - y))


ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": Activation(lambda xp, v, a: sigmoid(xp, v), _sigmoid_slope, 0.25),
    "tanh": Activation(lambda xp, v, a: xp.tanh(v), _tanh_slope, 1.0),
    # v <= 0 rather than v > 0: a NaN then stays a NaN, and a trial that diverged is seen to have.
    "relu": Activation(lambda xp, v, a: xp.where(v <= 0, 0.0, v), lambda xp, v, a: _step(xp, v, 0.0), 1.0),
    "leaky_relu": Activation(lambda xp, v, a: xp.where(v > 0, v, a * v), lambda xp, v, a: _step(xp, v, a), 1.0),
    "identity": Activation(lambda xp, v, a: v, lambda xp, v, a: 1.0 + 0.0 * v, 1.0),
    "elu": Activation(
        lambda xp, v, a: xp.where(v > 0, v, _expm1_left(xp, v)),
        lambda xp, v, a: xp.where(v > 0, 1.0, _exp_left(xp, v)),
        1.0,
    ),
    "selu": Activation(
        lambda xp, v, a: SELU_SCALE * xp.where(v > 0, v, SELU_ALPHA * _expm1_left(xp, v)),
        lambda xp, v, a: SELU_SCALE * xp.where(v > 0, 1.0, SELU_ALPHA * _exp_left(xp, v)),
        SELU_SCALE * SELU_ALPHA,
    ),
    "gelu": Activation(
        lambda xp, v, a: v * _normal_cdf(xp, v),
        lambda xp, v, a: _normal_cdf(xp, v) + v * _normal_pdf(xp, v),
        1.128904145,  # at v = √2
    ),
    "silu": Activation(lambda xp, v, a: v * sigmoid(xp, v), _silu_slope, 1.099839320),  # at v = 2.3994
    "softplus": Activation(lambda xp, v, a: softplus(xp, v), lambda xp, v, a: sigmoid(xp, v), 1.0),
}
