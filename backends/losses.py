"""Tasks: what the outputs of a network mean, and the loss of a row. docs/theory.md, "Tasks: output layer and loss".

`xp` is the module of operations: `torch`, `keras.ops`, or `activations.numerics` for NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from backends.activations import numerics, sigmoid, softplus
from backends.spec import NDArray, Task

Array = Any
ROWS_AT_ONCE = 65536  # whose targets are held in float64: 1 MB of two numbers each


def targets(task: Task, y: NDArray, outputs: int, dtype: Any = np.float64) -> NDArray:
    """What the outputs are held against: (n, outputs).

    y is (n, m) or (n,) numbers for regression, (n,) of 0 and 1 for binary, (n,) class numbers for multiclass (one-hot here).
    """
    if task == "multiclass":
        return np.eye(outputs, dtype=dtype)[np.asarray(y, dtype=np.int64)]
    return np.asarray(y, dtype=dtype).reshape(len(y), outputs)


def row_losses(xp: Any, task: Task, logits: Array, d: Array) -> Array:
    """ℓ of each row: logits and d (..., B, outputs) -> (..., B). d as `targets` gives it."""
    if task == "regression":
        return xp.mean((d - logits) * (d - logits), -1)
    if task == "binary":
        return xp.sum(softplus(xp, logits) - d * logits, -1)
    return xp.logsumexp(logits, -1) - xp.sum(d * logits, -1)


def class_weights(counts: Sequence[int], given: Sequence[float] | None) -> tuple[float, ...]:
    """w_c of each class, scaled to mean 1 over the training rows, of which `counts` says how many each class has.

    `given` None is "balanced": n / (classes · n_c), so that each class weighs the same.
    """
    n = sum(counts)
    if given is None:
        return tuple(n / (len(counts) * count) for count in counts)
    total = math.fsum(w * count for w, count in zip(given, counts, strict=True))
    return tuple(w * n / total for w in given)


def weighed(xp: Any, task: Task, d: Array, outputs: int, classes: Array | None) -> tuple[Array, Array | None]:
    """The targets (..., B, outputs) of what `Stack.targets` gives, and w_i·w_c of each row, (K or 1, B); None: all 1.

    `classes` are the w_c of each trial, (K, classes), or None.
    """
    own = d[..., outputs] if d.shape[-1] > outputs else None
    d = d if own is None else d[..., :outputs]
    if classes is None:
        return d, own
    of_class = row_weights(xp, task, d, classes)
    return d, of_class if own is None else own * of_class


def row_weights(xp: Any, task: Task, d: Array, w: Array) -> Array:
    """w_c of the class of each row: d (B, outputs) or (K or 1, B, outputs) as `targets` gives it, w (K, classes) -> (K, B)."""
    if task == "binary":
        return d[..., 0] * w[:, 1:] + (1 - d[..., 0]) * w[:, :1]
    return xp.sum(d * w[:, None, :], -1)


def mean_loss(task: Task, logits: NDArray, d: NDArray) -> NDArray:
    """E in float64, from outputs: (..., n, outputs) and (n, outputs) -> (...)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return row_losses(numerics, task, logits.astype(np.float64), d).mean(-1)


def validation_loss(task: Task, logits: NDArray, y: NDArray) -> float:
    """E of one network in float64, some rows at a time: logits (n, outputs), y as `targets` takes it."""
    blocks = (slice(start, start + ROWS_AT_ONCE) for start in range(0, len(y), ROWS_AT_ONCE))
    with np.errstate(over="ignore", invalid="ignore"):
        losses = [
            row_losses(numerics, task, logits[block].astype(np.float64), targets(task, y[block], logits.shape[1]))
            for block in blocks
        ]
    return float(np.concatenate(losses).mean())


def predictions(task: Task, logits: NDArray) -> NDArray:
    """What the network says, in float64: targets (n, m), P(class 1) (n,), or P(class) (n, classes)."""
    z = logits.astype(np.float64)
    if task == "regression":
        return z
    if task == "binary":
        return sigmoid(numerics, z)[..., 0]
    return np.exp(z - numerics.logsumexp(z, -1)[..., None])
