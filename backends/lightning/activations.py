"""Activations in torch: activations.py's functions, without `torch.where` for those that people use most.

`where` is not vectorised: relu out of it took 390 µs on 65 000 numbers, torch.relu 3. torch's own sigmoid, elu, silu, softplus
and (in float64) gelu treat the last few numbers of an array otherwise: in a stack a trial's last bits would differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backends.activations import ACTIVATIONS
from backends.spec import Model


class Formula(NamedTuple):
    """φ(v), and φ'(v) from v, y = φ(v) and the slope a of leaky_relu."""

    value: Callable[[Tensor, Tensor], Tensor]
    slope: Callable[[Tensor, Tensor, Tensor], Tensor]


def sigmoid(v: Tensor) -> Tensor:
    """1/(1+e^-v); e^-v may become infinite, and then this is 0, as it should be."""
    return torch.exp(-v).add_(1.0).reciprocal_()


def negative(v: Tensor) -> Tensor:
    """The smaller of v and 0."""
    return torch.relu(-v).neg_()


def step(v: Tensor) -> Tensor:
    """1 where v > 0, else 0, as numbers: comparing into booleans takes five times as long."""
    return torch.gt(v, 0.0, out=torch.empty_like(v))


def leaky(v: Tensor, a: Tensor) -> Tensor:
    """prelu takes one slope a channel, and channels are dimension 1."""
    return F.prelu(v.transpose(0, 1), a.flatten()).transpose(0, 1)


FORMULAS: dict[str, Formula] = {
    "relu": Formula(lambda v, a: torch.relu(v), lambda v, y, a: step(v)),
    "leaky_relu": Formula(leaky, lambda v, y, a: (s := step(v)) + (1.0 - s) * a),
    "sigmoid": Formula(lambda v, a: sigmoid(v), lambda v, y, a: y * (1.0 - y)),
    "tanh": Formula(lambda v, a: torch.tanh(v), lambda v, y, a: 1.0 - y * y),
    "identity": Formula(lambda v, a: v, lambda v, y, a: torch.ones_like(v)),
    "elu": Formula(lambda v, a: torch.relu(v) + torch.expm1(negative(v)), lambda v, y, a: torch.exp(negative(v))),
    "silu": Formula(lambda v, a: v * sigmoid(v), lambda v, y, a: (s := sigmoid(v)) * (1.0 + v * (1.0 - s))),
    "softplus": Formula(lambda v, a: torch.relu(v) + torch.log1p(torch.exp(-v.abs())), lambda v, y, a: sigmoid(v)),
}


def value(name: str, v: Tensor, a: Tensor) -> Tensor:
    """φ(v)."""
    y: Tensor = FORMULAS[name].value(v, a) if name in FORMULAS else ACTIVATIONS[name].value(torch, v, a)
    return y


def slope(name: str, v: Tensor, a: Tensor, y: Tensor | None = None) -> Tensor:
    """φ'(v), with y = φ(v) if it is known."""
    if name in FORMULAS:
        return FORMULAS[name].slope(v, value(name, v, a) if y is None else y, a)
    phi: Tensor = ACTIVATIONS[name].slope(torch, v, a)
    return phi


# As people know them, for `to_torch`. torch's softplus becomes the identity above a threshold; beyond 40, log(1 + e^v) is v to
# the last bit of float64.
MODULES: dict[str, Callable[[Model], nn.Module]] = {
    "sigmoid": lambda model: nn.Sigmoid(),
    "tanh": lambda model: nn.Tanh(),
    "relu": lambda model: nn.ReLU(),
    "leaky_relu": lambda model: nn.LeakyReLU(model.slope),
    "identity": lambda model: nn.Identity(),
    "elu": lambda model: nn.ELU(),
    "selu": lambda model: nn.SELU(),
    "gelu": lambda model: nn.GELU(approximate="none"),
    "silu": lambda model: nn.SiLU(),
    "softplus": lambda model: nn.Softplus(threshold=40.0),
}
