"""Optimizer steps in keras.ops, with one learning rate a trial (Keras' own optimizers take one number).

docs/theory.md, "Optimizers, schedule, clipping", as pure functions: (spec, θ, g, slots, η (K, 1), numbers) -> θ, slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from backends.spec import SGD, Adam, AdamW, Optimizer, RMSprop

Tensor = Any
NDArray = np.ndarray[Any, np.dtype[Any]]
Numbers = dict[str, Tensor]  # what is free per trial, (K, 1) each; `correction1` and `correction2` of Adam, 1 - β^t, scalars


def sgd(o: SGD, theta: Tensor, g: Tensor, slots: Numbers, eta: Tensor, n: Numbers) -> tuple[Tensor, Numbers]:
    """v ← μv + g, θ ← θ - ηv; Nesterov: θ ← θ - η(g + μv) with v already updated."""
    v = n["momentum"] * slots["momentum"] + g
    return theta - eta * (g + n["momentum"] * v if o.nesterov else v), {"momentum": v}


def adam(o: Adam | AdamW, theta: Tensor, g: Tensor, slots: Numbers, eta: Tensor, n: Numbers) -> tuple[Tensor, Numbers]:
    """Kingma & Ba (2015), Algorithm 1. Keras' own adds ε before the bias correction."""
    m = o.beta1 * slots["m"] + (1 - o.beta1) * g
    v = o.beta2 * slots["v"] + (1 - o.beta2) * (g * g)
    m_hat, v_hat = m / n["correction1"], v / n["correction2"]
    return theta - eta * (m_hat / (ops.sqrt(v_hat) + o.epsilon)), {"m": m, "v": v}


def adamw(o: AdamW, theta: Tensor, g: Tensor, slots: Numbers, eta: Tensor, n: Numbers) -> tuple[Tensor, Numbers]:
    """Adam, and η·weight_decay·θ subtracted besides (Loshchilov & Hutter 2019)."""
    moved, slots = adam(o, theta, g, slots, eta, n)
    return moved - eta * n["weight_decay"] * theta, slots


def rmsprop(o: RMSprop, theta: Tensor, g: Tensor, slots: Numbers, eta: Tensor, n: Numbers) -> tuple[Tensor, Numbers]:
    """s ← ρs + (1-ρ)g², θ ← θ - ηg/(√s + ε)."""
    s = o.rho * slots["s"] + (1 - o.rho) * (g * g)
    return theta - eta * (g / (ops.sqrt(s) + o.epsilon)), {"s": s}


RULES: dict[str, Callable[..., tuple[Tensor, Numbers]]] = {"sgd": sgd, "adam": adam, "adamw": adamw, "rmsprop": rmsprop}


def corrections(spec: Optimizer, step: int, count: int) -> NDArray:
    """1 - β1^t and 1 - β2^t at `count` steps from `step` (t = step + 1), in float64: (count, 2). Ones without β."""
    betas = (spec.beta1, spec.beta2) if isinstance(spec, Adam | AdamW) else (0.0, 0.0)
    return np.array([[1 - beta**t for beta in betas] for t in range(step + 1, step + count + 1)])
