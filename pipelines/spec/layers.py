"""The value of one layer by a path of its own, model.dropout.1: laid over what the spec holds for all of them.

It waits until the number of layers is known, so it does not matter whether model.hidden is overridden before or after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.spec import Model, Regularization

# Key -> how many layers it counts besides the hidden ones, and what they are called together.
LAYERED = {
    "model.hidden": (0, "hidden layers"),  # first: it says how many layers there are
    "model.dropout": (0, "hidden layers"),
    "regularization.l1": (1, "layers (hidden + 1)"),
    "regularization.l2": (1, "layers (hidden + 1)"),
}
ABSENT = object()
DEFAULTS = {"model": Model(), "regularization": Regularization()}


@dataclass
class Layers:
    """What stands at a key, if anything does, and what single layers are to have, counted from 0."""

    all: Any
    single: dict[int, Any] = field(default_factory=dict)


def put(raw: dict[str, Any], path: Sequence[str | int], value: object) -> None:
    """raw[path[0]][path[1]]... = value; mappings in between are made. A whole number at the end is a layer."""
    if isinstance(path[-1], int):
        layer, path = path[-1], path[:-1]
        before = _get(raw, path)
        layers = before if isinstance(before, Layers) else Layers(before)
        value = Layers(layers.all, {**layers.single, layer: value})
    for part in path[:-1]:
        if not isinstance(raw.get(str(part)), dict):
            raw[str(part)] = {}
        raw = raw[str(part)]
    raw[str(path[-1])] = value


def _get(raw: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        raw = raw.get(part, ABSENT) if isinstance(raw, dict) else ABSENT
    return raw


def written_out(raw: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[tuple[str, str, int], str]]]:
    """A copy with one value a layer where a layer has its own; (path, sentence) of each layer that there is not."""
    raw = {block: dict(keys) if isinstance(keys, dict) else keys for block, keys in raw.items()}
    wrong: list[tuple[tuple[str, str, int], str]] = []
    for name in LAYERED:
        block, key = name.split(".")
        layers = _get(raw, (block, key))
        if isinstance(layers, Layers):
            value = getattr(DEFAULTS[block], key) if layers.all is ABSENT else layers.all
            hidden = value if key == "hidden" else _get(raw, ("model", "hidden"))
            raw[block][key] = _listed(name, value, layers.single, Model().hidden if hidden is ABSENT else hidden, wrong)
    return raw, wrong


def _listed(name: str, value: Any, single: dict[int, Any], hidden: Any, wrong: list[tuple[tuple[str, str, int], str]]) -> Any:
    """The values of all layers; as it was where the layers cannot be counted, which is refused for itself."""
    more, what = LAYERED[name]
    count = len(hidden) + more if isinstance(hidden, list | tuple) else 0
    listed = list(value) if isinstance(value, list | tuple) else [value] * count
    if not isinstance(hidden, list | tuple) or len(listed) != count:
        return value
    for layer, own in single.items():
        if layer < count:
            listed[layer] = own
        else:
            block, key = name.split(".")
            place = f"in [0, {count}), one of the {what}, got {layer}" if count else f"of the {what}, of which there are none"
            wrong.append(((block, key, layer), f"{name}.{layer} must name a layer {place}"))
    return listed
