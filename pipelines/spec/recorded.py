"""The spec as a finished run keeps it in run.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.spec import Experiment


def whole_spec(trained: Mapping[str, Any], experiment: Experiment | None) -> dict[str, Any]:
    """The spec of a run, with the blocks that only `experiment` knows, if that is of this run and not of a later one."""
    now = experiment.model_dump(mode="json") if experiment else {}
    agrees = all(now.get(block) == value for block, value in trained.items())
    return {**now, **trained} if agrees else dict(trained)


def flatten(nested: Mapping[str, Any], prefix: str = "", joint: str = ".") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{joint}{key}" if prefix else str(key)
        found.update(flatten(value, name, joint) if isinstance(value, dict) else {name: value})
    return found
