"""Keras optimizers over the flat weights of K trials, with one learning rate a trial (Keras' own take one number).

The rules are docs/theory.md's, "Optimizers, schedule, clipping": pure functions in keras.ops, wrapped as Keras optimizers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from backends.base import OPTIMIZER_SLOTS
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


class StackedOptimizer(keras.optimizers.Optimizer):  # type: ignore[misc]
    """One rule for the one variable (K, P) of a stack. The trainer sets `rate` and the corrections before each `apply`."""

    def __init__(self, spec: Optimizer, hyper: list[str], dtype: str) -> None:
        """`hyper`: the rule's numbers that every trial has its own of."""
        # Keras takes a float, a schedule or a callable; only the last may give one rate a trial.
        super().__init__(learning_rate=self._own_rate)
        self.spec, self.hyper, self.dtype = spec, tuple(hyper), dtype

    def build(self, variables: list[Any]) -> None:
        """The slots, and the columns that are set from outside."""
        (flat,) = variables
        super().build(variables)
        column = (flat.shape[0], 1)
        self.slots = {name: self.add_variable_from_reference(flat, name) for name in OPTIMIZER_SLOTS[self.spec.name]}
        self.rate = self.add_variable(column, dtype=self.dtype, name="rate")
        self.numbers = {name: self.add_variable(column, dtype=self.dtype, name=name) for name in self.hyper}
        for name in ("correction1", "correction2"):
            self.numbers[name] = self.add_variable((), "ones", dtype=self.dtype, name=name)

    def _own_rate(self) -> Any:
        return self.rate

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """One step of the rule; Keras calls this inside `apply`."""
        slots = {name: slot.value for name, slot in self.slots.items()}
        numbers = {name: number.value for name, number in self.numbers.items()}
        rule = RULES[self.spec.name]
        moved, slots = rule(self.spec, ops.convert_to_tensor(variable), gradient, slots, learning_rate.value, numbers)
        self.assign(variable, moved)
        for name, slot in slots.items():
            self.assign(self.slots[name], slot)


def corrections(spec: Optimizer, step: int, count: int) -> NDArray:
    """1 - β1^t and 1 - β2^t at `count` steps from `step` (t = step + 1), in float64: (count, 2). Ones without β."""
    betas = (spec.beta1, spec.beta2) if isinstance(spec, Adam | AdamW) else (0.0, 0.0)
    return np.array([[1 - beta**t for beta in betas] for t in range(step + 1, step + count + 1)])
