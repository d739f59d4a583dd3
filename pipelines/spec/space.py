"""What a study may vary: pure checks of `search.space`, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pipelines.spec.blocks import Choices, Range
from pipelines.spec.describe import Node, leaves, members, resolve


def ordered(space: Mapping[str, Range | Choices]) -> list[str]:
    """The paths of a space, each after those that its `when` names, else as in the file. Raises ValueError for a cycle."""
    order: list[str] = []

    def add(path: str, above: tuple[str, ...]) -> None:
        if path in above:
            chain = " -> ".join([*above[above.index(path) :], path])
            raise ValueError(f"must not depend on itself, got {chain}")
        if path not in order:
            for other in space[path].when or {}:
                if other in space:
                    add(other, (*above, path))
            order.append(path)

    for path in space:
        add(path, ())
    return order


def takes_whole_numbers(path: str) -> bool:
    """Does the key take whole numbers alone? A layer of model.hidden does."""
    from pipelines.spec import models_schema  # which needs the checks here

    return path in _whole_number_keys(models_schema)


@cache
def _whole_number_keys(schema: Any) -> frozenset[str]:
    root: Node = schema()
    kinds = {path: {m.get("type") for m in members(resolve(node, root), root)} for path, node, _ in leaves(root)}
    return frozenset(path for path, types in kinds.items() if "integer" in types and "number" not in types)
