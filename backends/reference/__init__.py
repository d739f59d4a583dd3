"""The delta rule in NumPy, line by line, one network at a time: the oracle for every other backend, stacked or not."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import numpy as np

from backends.base import Backend, Data, Machine, check_single
from backends.reference.stack import ReferenceStack
from backends.spec import Trial

__all__ = ["Reference"]


class Reference(Backend):
    """NumPy on one processor. Slow on purpose: it loops over trials, so that a student recognises the lines."""

    name = "reference"

    def stack(self, trials: Sequence[Trial], data: Data | None = None, machine: Machine | None = None) -> ReferenceStack:
        """Raises BackendError for more than one device, and for training in mixed precision."""
        machine = machine or Machine()
        check_single(self.name, trials, data, machine)
        return ReferenceStack(trials, data, machine)

    def versions(self) -> dict[str, str]:
        return {"numpy": np.__version__, "python": platform.python_version()}

    def devices(self) -> list[str]:
        return ["cpu"]
