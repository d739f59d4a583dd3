"""The network: outputs of K networks of one structure, from one flat (K, P) parameter.

One leaf makes optimizer, clipping, penalty and checkpoint single lines. It is split into the layers' parameters, whose
gradient is then a single concatenation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from backends.base import Stack
from backends.lightning.activations import activation, slope

Parameters = dict[str, Tensor]
Masks = Sequence[Tensor | None]  # for each place where noise enters: what multiplies it, or None for no dropout


# Mixed precision: the type that products are made in. Weights, sums, activations and losses stay in float32.
PRODUCTS = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def dense(y: Tensor, p: Parameters, product: torch.dtype | None) -> Tensor:
    """v = y W + b. y (K, B, I) or (1, B, I), W (K, I, O), b (K, O) -> (K, B, O)."""
    weight, bias = p["weight"], p["bias"].unsqueeze(1)
    if weight.shape[-1] == 1:
        # A product with one column takes another kernel at K = 1 than at K > 1, with other last bits; a sum does not.
        return (y * weight.transpose(1, 2)).sum(-1, keepdim=True) + bias
    if product is not None:
        # What torch.autocast does to a product, but b is added, and v handed on, in float32.
        return torch.bmm(y.to(product).expand(len(weight), -1, -1), weight.to(product)).to(weight.dtype) + bias
    return torch.baddbmm(bias, y.expand(len(weight), -1, -1), weight)


LAYERS: dict[str, Callable[[Tensor, Parameters, torch.dtype | None], Tensor]] = {"dense": dense}


class Network(nn.Module):
    """K networks that train together; `flat` (K, P) is all there is to train."""

    def __init__(self, stack: Stack, device: torch.device) -> None:
        super().__init__()
        self.flat = nn.Parameter(torch.zeros(stack.l1.shape, dtype=torch.from_numpy(stack.l1).dtype, device=device))
        self.slopes = torch.from_numpy(stack.slopes).to(device).view(-1, 1, 1)
        self.layers, self.groups = stack.trials[0].layers, stack.groups
        self._slots, self._sizes = stack.slots, [slot.stop - slot.start for slot in stack.slots]

    def forward(self, x: Tensor, masks: Masks, product: torch.dtype | None = None) -> Tensor:
        """Outputs before sigmoid or softmax: x (K, B, I), or (1, B, I) for all -> (K, B, O)."""
        return self.fields(self.flat, x, masks, product)[-1]

    def fields(self, flat: Tensor, x: Tensor, masks: Masks, product: torch.dtype | None = None) -> list[Tensor]:
        """The local fields v of every layer, (K, B, units); the last ones are the outputs. `product`: see PRODUCTS."""
        fields: list[Tensor] = []
        for number, parameters in enumerate(self._parameters_of(flat)):
            y = self._by_group(activation, fields[-1]) if number else x
            mask = masks[number]
            fields.append(LAYERS[self.layers[number].kind](y if mask is None else y * mask, parameters, product))
        return fields

    def slope(self, field: Tensor) -> Tensor:
        """φ'(v) of a hidden layer, (K, B, units)."""
        return self._by_group(slope, field)

    def _by_group(self, function: Callable[[str, Tensor, Tensor], Tensor], field: Tensor) -> Tensor:
        """Each activation on its own trials."""
        if len(self.groups) == 1:
            return function(self.groups[0][0], field, self.slopes)
        sizes = [stop - start for _, start, stop in self.groups]
        parts = zip(self.groups, torch.split(field, sizes), torch.split(self.slopes, sizes), strict=True)
        return torch.cat([function(name, v, a) for (name, _, _), v, a in parts])

    def _parameters_of(self, flat: Tensor) -> list[Parameters]:
        layers: list[Parameters] = [{} for _ in self.layers]
        for slot, piece in zip(self._slots, torch.split(flat, self._sizes, dim=1), strict=True):
            layers[slot.layer][slot.name] = piece.view(-1, *slot.shape)
        return layers
