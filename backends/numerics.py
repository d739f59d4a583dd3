"""NumPy as the module of operations that activations and losses are written against (as `torch` and `keras.ops` are)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy import abs, exp, expm1, log, log1p, max, mean, sqrt, sum, tanh, where

__all__ = ["abs", "erf", "exp", "expm1", "log", "log1p", "logsumexp", "max", "mean", "sqrt", "sum", "tanh", "where"]

_erf = np.vectorize(math.erf, otypes=[np.float64])  # NumPy has none


def erf(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The error function, in float64, returned in the type of `x`."""
    return _erf(x).astype(x.dtype) if x.size else x


def logsumexp(x: np.ndarray[Any, Any], axis: int) -> np.ndarray[Any, Any]:
    """log Σ e^x along an axis, safe from overflow."""
    top = max(x, axis, keepdims=True)
    return np.squeeze(top, axis) + log(sum(exp(x - top), axis))
