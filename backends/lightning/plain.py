"""A trained network as the plain torch.nn.Sequential that people know; nothing of deltarule is in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from backends import weights
from backends.base import NDArray
from backends.spec import Dense, Layer, Model, Trial

Parameters = dict[str, Tensor]

# torch's softplus becomes the identity above a threshold; beyond 40, log(1 + e^v) is v to the last bit of float64.
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


def to_torch(trial: Trial, flat: NDArray) -> nn.Sequential:
    """nn.Linear, activation and nn.Dropout modules with the weights (P,) in place, in evaluation mode, on the processor.

    Takes rows (n, I) of the weights' type, preprocessed as the training rows were, and gives outputs before sigmoid or
    softmax (n, O), as nn.BCEWithLogitsLoss and nn.CrossEntropyLoss want them. Dropout draws from torch's own generator.
    """
    parameters = weights.unpack(trial, flat)
    modules = _noise(trial.dropout[0])
    for number, layer in enumerate(trial.layers):
        own = {name: torch.tensor(parameters[f"layers.{number}.{name}"]) for name in layer.parameters()}
        modules.append(LAYERS[layer.kind](layer, own))
        if number < len(trial.model.hidden):
            modules += [MODULES[trial.model.activation](trial.model), *_noise(trial.dropout[number + 1])]
    return nn.Sequential(*modules).eval()


def save(trial: Trial, flat: NDArray, stem: Path) -> Path:
    """Write `to_torch`'s module as STEM.pt2, for any number of rows; torch.export.load reads it, in Python or C++."""
    module, path = to_torch(trial, flat), stem.with_name(f"{stem.name}.pt2")
    rows = torch.zeros(2, trial.inputs, dtype=torch.from_numpy(flat[:0]).dtype)  # of 1, export would make a constant
    program = torch.export.export(module, (rows,), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path)
    return path


def _noise(p: float) -> list[nn.Module]:
    return [nn.Dropout(p)] if p else []


def _dense(layer: Dense, parameters: Parameters) -> nn.Module:
    """torch stores a weight as (outputs, inputs). skip_init: no random numbers are drawn for what is replaced."""
    weight = parameters["weight"]
    linear = nn.utils.skip_init(nn.Linear, layer.inputs, layer.outputs, dtype=weight.dtype)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        linear.weight.copy_(weight.T)
        linear.bias.copy_(parameters["bias"])
    return linear


LAYERS: dict[str, Callable[[Layer, Parameters], nn.Module]] = {"dense": _dense}
