"""Optimizer steps on one flat vector θ (P,), as the papers write them. docs/theory.md, "Optimizers, schedule, clipping".

Each takes (optimizer spec, θ, g, slots, η, t) with t counted from 1, updates the slots in place and returns the new θ.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backends.spec import SGD, Adam, AdamW, RMSprop

NDArray = np.ndarray[Any, np.dtype[Any]]
Slots = dict[str, NDArray]


def sgd(o: SGD, theta: NDArray, g: NDArray, slots: Slots, eta: Any, t: int) -> NDArray:
    """v ← μv + g, θ ← θ - ηv; Nesterov: θ ← θ - η(g + μv) with v already updated."""
    mu = theta.dtype.type(o.momentum)
    slots["momentum"][:] = mu * slots["momentum"] + g
    return theta - eta * (g + mu * slots["momentum"] if o.nesterov else slots["momentum"])


def adam(o: Adam | AdamW, theta: NDArray, g: NDArray, slots: Slots, eta: Any, t: int) -> NDArray:
    """Kingma & Ba (2015), Algorithm 1: ε is added after bias correction."""
    number = theta.dtype.type
    slots["m"][:] = number(o.beta1) * slots["m"] + number(1 - o.beta1) * g
    slots["v"][:] = number(o.beta2) * slots["v"] + number(1 - o.beta2) * (g * g)
    m_hat = slots["m"] / number(1 - o.beta1**t)
    v_hat = slots["v"] / number(1 - o.beta2**t)
    return theta - eta * (m_hat / (np.sqrt(v_hat) + number(o.epsilon)))


def adamw(o: AdamW, theta: NDArray, g: NDArray, slots: Slots, eta: Any, t: int) -> NDArray:
    """Adam, and η·weight_decay·θ subtracted besides (Loshchilov & Hutter 2019)."""
    return adam(o, theta, g, slots, eta, t) - eta * theta.dtype.type(o.weight_decay) * theta


def rmsprop(o: RMSprop, theta: NDArray, g: NDArray, slots: Slots, eta: Any, t: int) -> NDArray:
    """s ← ρs + (1-ρ)g², θ ← θ - ηg/(√s + ε)."""
    number = theta.dtype.type
    slots["s"][:] = number(o.rho) * slots["s"] + number(1 - o.rho) * (g * g)
    return theta - eta * (g / (np.sqrt(slots["s"]) + number(o.epsilon)))


STEPS: dict[str, Any] = {"sgd": sgd, "adam": adam, "adamw": adamw, "rmsprop": rmsprop}
