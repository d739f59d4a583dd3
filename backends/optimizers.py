"""Optimizers: one step of each once, from elementary operations, and what it keeps between steps.

docs/theory.md, "Optimizers, schedule, clipping". A step takes (xp, spec, θ, g, slots, η, numbers) and returns θ and the slots.
`xp` is `keras.ops`, or `activations.numerics` for NumPy. `numbers` are the optimizer's free ones (momentum, weight decay), and
1 - β1^t and 1 - β2^t as `correction1` and `correction2`. η and numbers are one a trial, in whatever shape fits θ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from backends.spec import SGD, Adam, AdamW, Optimizer, RMSprop

Array = Any
Named = dict[str, Array]


class Rule(NamedTuple):
    """How an optimizer moves, and the names of what it keeps of each weight, which start at 0."""

    step: Callable[..., tuple[Array, Named]]
    slots: tuple[str, ...]
    squares: bool = True  # of the gradient, which must not overflow


def sgd(xp: Any, o: SGD, theta: Array, g: Array, slots: Named, eta: Array, n: Named) -> tuple[Array, Named]:
    """v ← μv + g, θ ← θ - ηv; Nesterov: θ ← θ - η(g + μv) with v already updated."""
    v = n["momentum"] * slots["momentum"] + g
    return theta - eta * (g + n["momentum"] * v if o.nesterov else v), {"momentum": v}


def adam(xp: Any, o: Adam, theta: Array, g: Array, slots: Named, eta: Array, n: Named) -> tuple[Array, Named]:
    """Kingma & Ba (2015), Algorithm 1: ε is added after bias correction."""
    m = o.beta1 * slots["m"] + (1 - o.beta1) * g
    v = o.beta2 * slots["v"] + (1 - o.beta2) * (g * g)
    m_hat, v_hat = m / n["correction1"], v / n["correction2"]
    return theta - eta * (m_hat / (xp.sqrt(v_hat) + o.epsilon)), {"m": m, "v": v}


def adamw(xp: Any, o: AdamW, theta: Array, g: Array, slots: Named, eta: Array, n: Named) -> tuple[Array, Named]:
    """Adam, and η·weight_decay·θ subtracted besides (Loshchilov & Hutter 2019)."""
    moved, slots = adam(xp, o, theta, g, slots, eta, n)
    return moved - eta * n["weight_decay"] * theta, slots


def rmsprop(xp: Any, o: RMSprop, theta: Array, g: Array, slots: Named, eta: Array, n: Named) -> tuple[Array, Named]:
    """s ← ρs + (1-ρ)g², θ ← θ - ηg/(√s + ε)."""
    s = o.rho * slots["s"] + (1 - o.rho) * (g * g)
    return theta - eta * (g / (xp.sqrt(s) + o.epsilon)), {"s": s}


RULES = {
    "sgd": Rule(sgd, ("momentum",), squares=False),
    "adam": Rule(adam, ("m", "v")),
    "adamw": Rule(adamw, ("m", "v")),
    "rmsprop": Rule(rmsprop, ("s",)),
}


def corrections(spec: Optimizer, step: int, count: int) -> np.ndarray[Any, np.dtype[Any]]:
    """1 - β1^t and 1 - β2^t at `count` steps from `step` (t = step + 1), in float64: (count, 2). Ones without β."""
    betas = (spec.beta1, spec.beta2) if isinstance(spec, Adam) else (0.0, 0.0)
    return np.array([[1 - beta**t for beta in betas] for t in range(step + 1, step + count + 1)])
