"""K networks of one structure on one flat (K, P) tensor: forward, and the delta rule backward, layer by layer.

Written out instead of left to autograd: the gradient goes straight into its place in a (K, P) buffer, where autograd would
record every operation, take fresh memory for each and concatenate at the end. `to_torch` is the plain module that people know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from backends import weights
from backends.base import NDArray, Stack
from backends.lightning.activations import MODULES, sigmoid, slope, value
from backends.losses import row_losses
from backends.spec import Dense, Task, Trial

Parameters = dict[str, Tensor]
Masks = Sequence[Tensor | None]  # for each place where noise enters: what multiplies it, or None for no dropout


# Mixed precision: the type that products are made in. Weights, sums, activations and losses stay in float32.
PRODUCTS = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def product(a: Tensor, b: Tensor, bits: torch.dtype | None) -> Tensor:
    """a (K, M, N) times b (K, N, L), with `bits` in 16 bits as torch.autocast would; the result in their own type."""
    return torch.bmm(a, b) if bits is None else torch.bmm(a.to(bits), b.to(bits)).to(a.dtype)


def dense(y: Tensor, p: Parameters, bits: torch.dtype | None) -> Tensor:
    """v = y W + b. y (K, B, I), W (K, I, O), b (K, O) -> (K, B, O)."""
    weight, bias = p["weight"], p["bias"].unsqueeze(1)
    if weight.shape[-1] == 1:
        # A product with one column takes another kernel at K = 1 than at K > 1, with other last bits; a sum does not.
        return (y * weight.mT).sum(-1, keepdim=True) + bias
    return torch.baddbmm(bias, y, weight) if bits is None else product(y, weight, bits) + bias


def dense_gradient(e: Tensor, y: Tensor, g: Parameters, bits: torch.dtype | None) -> None:
    """dW = Σ y e and db = Σ e over rows, into g. e = ∂ℓ/∂v (K, B, O), y (K, B, I)."""
    torch.sum(e, 1, out=g["bias"])
    if e.shape[-1] == 1:
        torch.sum(y * e, 1, out=g["weight"].squeeze(-1))
    elif bits is None:
        torch.bmm(y.mT, e, out=g["weight"])
    else:
        g["weight"].copy_(product(y.mT, e, bits))


def dense_back(e: Tensor, p: Parameters, bits: torch.dtype | None) -> Tensor:
    """∂ℓ/∂y = e Wᵀ: e (K, B, O) -> (K, B, I)."""
    weight = p["weight"]
    return e * weight.mT if weight.shape[-1] == 1 else product(e, weight.mT, bits)


def dense_plain(layer: Dense, parameters: Parameters) -> nn.Module:
    """torch stores a weight as (outputs, inputs). skip_init: no random numbers are drawn for what is replaced."""
    weight = parameters["weight"]
    linear = nn.utils.skip_init(nn.Linear, layer.inputs, layer.outputs, dtype=weight.dtype)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        linear.weight.copy_(weight.T)
        linear.bias.copy_(parameters["bias"])
    return linear


class Kind(NamedTuple):
    """What a kind of layer is in torch."""

    forward: Callable[[Tensor, Parameters, torch.dtype | None], Tensor]
    gradient: Callable[[Tensor, Tensor, Parameters, torch.dtype | None], None]
    back: Callable[[Tensor, Parameters, torch.dtype | None], Tensor]
    plain: Callable[[Dense, Parameters], nn.Module]


LAYERS = {"dense": Kind(dense, dense_gradient, dense_back, dense_plain)}


def _regression(v: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    return row_losses(torch, "regression", v, d), (v - d).mul_(2 / v.shape[-1])


def _binary(v: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    return row_losses(torch, "binary", v, d), sigmoid(v).sub_(d)


def _multiclass(v: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(v) = e^(v - logsumexp v): torch.softmax takes 20 ns a number where a row is short, eight times as long."""
    total = torch.logsumexp(v, -1, keepdim=True)
    return total[..., 0] - (d * v).sum(-1), (v - total).exp_().sub_(d)


# From the outputs v (K, B, O) and the targets d (B, O) or (1, B, O): ℓ of each row (K, B), and ∂ℓ/∂v, which is -δ.
LOSSES: dict[Task, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "regression": _regression,
    "binary": _binary,
    "multiclass": _multiclass,
}


Parts = list[Tensor]  # (k, B, units) for each group of trials of one activation: joining them costs as much as computing them


class Pass(NamedTuple):
    """What one pass forward leaves for the one back: a layer, its input (K, B, I) and its local field v (K, B, O); a hidden
    layer, φ(v) before dropout."""

    inputs: list[Tensor]
    fields: list[Tensor]
    values: list[Parts]


class Network:
    """K networks that train together; `flat` (K, P) is all there is to train."""

    def __init__(self, stack: Stack, device: torch.device) -> None:
        self.flat = torch.zeros(stack.l1.shape, dtype=torch.from_numpy(stack.l1).dtype, device=device)
        self.layers = stack.trials[0].layers
        self.quiet: Masks = [None] * len(self.layers)
        self._slots, self._sizes = stack.slots, [slot.stop - slot.start for slot in stack.slots]
        self._names, self._trials = [name for name, _, _ in stack.groups], [stop - start for _, start, stop in stack.groups]
        self._slopes = torch.split(torch.from_numpy(stack.slopes).to(device).view(-1, 1, 1), self._trials)

    def views(self, flat: Tensor) -> list[Parameters]:
        """Each layer's parameters (or their gradients), by name, as views of (K, P)."""
        layers: list[Parameters] = [{} for _ in self.layers]
        for slot, piece in zip(self._slots, torch.split(flat, self._sizes, dim=1), strict=True):
            layers[slot.layer][slot.name] = piece.view(-1, *slot.shape)
        return layers

    def forward(self, parameters: list[Parameters], x: Tensor, masks: Masks, bits: torch.dtype | None = None) -> Pass:
        """x (K, B, I), or (1, B, I) for all.

        The last field is the output before sigmoid or softmax. `bits`: see PRODUCTS.
        """
        run = Pass([x if masks[0] is None else x * masks[0]], [], [])
        for number, own in enumerate(parameters):
            if number:
                v = torch.split(run.fields[-1], self._trials)
                run.values.append([value(*part) for part in zip(self._names, v, self._slopes, strict=True)])
                run.inputs.append(self._joined(run.values[-1], masks[number]))
            y = run.inputs[-1].expand(len(own["bias"]), -1, -1)
            run.fields.append(LAYERS[self.layers[number].kind].forward(y, own, bits))
        return run

    def slopes_of(self, run: Pass) -> list[Parts]:
        """φ'(v) of each hidden layer."""
        return [
            [slope(*part) for part in zip(self._names, torch.split(v, self._trials), self._slopes, y, strict=True)]
            for v, y in zip(run.fields, run.values, strict=False)
        ]

    def backward(
        self, parameters: list[Parameters], slopes: list[Parts], e: Tensor, masks: Masks, bits: torch.dtype | None = None
    ) -> list[Tensor]:
        """∂ℓ/∂v of every layer, (K, B, units), from that of the outputs: e ← φ'(v) · z · e Wᵀ, with the mask z of dropout."""
        errors = [e]
        for number in range(len(self.layers) - 1, 0, -1):
            below, mask = LAYERS[self.layers[number].kind].back(errors[0], parameters[number], bits), masks[number]
            if mask is not None:
                below.mul_(mask)
            for part, phi in zip(torch.split(below, self._trials), slopes[number - 1], strict=True):
                part.mul_(phi)
            errors.insert(0, below)
        return errors

    def gradient(self, run: Pass, errors: list[Tensor], g: list[Parameters], bits: torch.dtype | None = None) -> None:
        """Of the sum over rows, into g, which `views` made."""
        for layer, e, y, own in zip(self.layers, errors, run.inputs, g, strict=True):
            LAYERS[layer.kind].gradient(e, y.expand(len(e), -1, -1), own, bits)

    def _joined(self, parts: Parts, mask: Tensor | None) -> Tensor:
        """(K, B, units), times the mask."""
        if len(parts) == 1 or mask is None:
            y = parts[0] if len(parts) == 1 else torch.cat(parts)
            return y if mask is None else y * mask
        y = parts[0].new_empty(sum(self._trials), *parts[0].shape[1:])
        masks = torch.split(mask.expand_as(y), self._trials)
        for part, own, place in zip(parts, masks, torch.split(y, self._trials), strict=True):
            torch.mul(part, own, out=place)
        return y


def to_torch(trial: Trial, flat: NDArray) -> nn.Sequential:
    """nn.Linear, activation and nn.Dropout modules with the weights (P,) in place, in evaluation mode, on the processor.

    Takes rows (n, I) of the weights' type, preprocessed as the training rows were, and gives outputs before sigmoid or
    softmax (n, O), as nn.BCEWithLogitsLoss and nn.CrossEntropyLoss want them. Dropout draws from torch's own generator.
    """
    parameters, modules = weights.unpack(trial, flat), list[nn.Module]()
    for number, layer in enumerate(trial.layers):
        if number:
            modules.append(MODULES[trial.model.activation](trial.model))
        if trial.dropout[number]:
            modules.append(nn.Dropout(trial.dropout[number]))
        own = {name: torch.tensor(parameters[f"layers.{number}.{name}"]) for name in layer.parameters()}
        modules.append(LAYERS[layer.kind].plain(layer, own))
    return nn.Sequential(*modules).eval()
