"""Activations in torch: activations.py's functions, without `torch.where` for those that people use most.

`where` is not vectorised and branches at every number: relu out of it took 390 µs on 65 000 numbers, torch.relu 3. But
torch's own sigmoid, elu, silu, softplus and (in float64) gelu treat the last few numbers of an array otherwise than the
rest, so that a trial in a stack would differ in its last bits from the trial alone. Hence vectorised elementary operations
here, and activations.py itself for every other; a test holds the two together, slope at 0 included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from backends.activations import ACTIVATIONS


class Formula(NamedTuple):
    """φ(v), and φ'(v) from v and y = φ(v)."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]


def sigmoid(v: Tensor) -> Tensor:
    """1/(1+e^-v); e^-v may become infinite, and then this is 0, as it should be."""
    return torch.exp(-v).add_(1.0).reciprocal_()


def negative(v: Tensor) -> Tensor:
    """The smaller of v and 0."""
    return torch.relu(-v).neg_()


FORMULAS: dict[str, Formula] = {
    "sigmoid": Formula(sigmoid, lambda v, y: y * (1.0 - y)),
    "elu": Formula(lambda v: torch.relu(v) + torch.expm1(negative(v)), lambda v, y: torch.exp(negative(v))),
    "silu": Formula(lambda v: v * sigmoid(v), lambda v, y: (y := sigmoid(v)) * (1.0 + v * (1.0 - y))),
    "softplus": Formula(lambda v: torch.relu(v) + torch.log1p(torch.exp(-v.abs())), lambda v, y: sigmoid(v)),
}

# torch knows how to differentiate these; prelu takes one slope a channel, and channels are dimension 1.
DIFFERENTIABLE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda v, a: torch.relu(v),
    "leaky_relu": lambda v, a: F.prelu(v.transpose(0, 1), a.flatten()).transpose(0, 1),
    "tanh": lambda v, a: torch.tanh(v),
    "identity": lambda v, a: v,
}


def activation(name: str, v: Tensor, a: Tensor) -> Tensor:
    """φ(v), differentiable: v (k, B, units), a (k, 1, 1) the slopes of leaky_relu."""
    if name in DIFFERENTIABLE:
        return DIFFERENTIABLE[name](v, a)
    y: Tensor = _Activation.apply(v, a, name)  # type: ignore[no-untyped-call]
    return y


def slope(name: str, v: Tensor, a: Tensor) -> Tensor:
    """φ'(v)."""
    phi: Tensor = ACTIVATIONS[name].slope(torch, v, a)
    return phi


class _Activation(torch.autograd.Function):
    """δ = φ'(v) · Σ δ w (THEORY.md), with φ' as the table writes it instead of what autograd makes of φ."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, a: Tensor, name: str) -> Tensor:
        y: Tensor = FORMULAS[name].value(v) if name in FORMULAS else ACTIVATIONS[name].value(torch, v, a)
        ctx.name = name
        ctx.save_for_backward(v, a, y)
        return y

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor, None, None]:
        v, a, y = ctx.saved_tensors
        phi = FORMULAS[ctx.name].slope(v, y) if ctx.name in FORMULAS else slope(ctx.name, v, a)
        return errors[0] * phi, None, None
