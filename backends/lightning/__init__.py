"""PyTorch through Lightning: K networks as one stacked network, driven by a Trainer."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version

# Before torch's first product. MKL's products then do not depend on how matrices lie in memory, so a trial has the same
# bits in a stack as alone; it cost nothing that could be measured (16 x 32x64x128: 90 µs with and without).
os.environ.setdefault("MKL_CBWR", "AUTO")

import torch

from backends import BackendError
from backends.base import Backend, Data, Machine
from backends.lightning.stack import LightningStack
from backends.spec import Trial

__all__ = ["Lightning"]


class Lightning(Backend):
    """One GPU if there is one, else the processor."""

    name = "lightning"

    def stack(self, trials: Sequence[Trial], data: Data | None = None, machine: Machine | None = None) -> LightningStack:
        """Raises BackendError for more than one device."""
        machine = machine or Machine()
        if machine.devices not in ("auto", 1):
            raise BackendError(
                f"train.devices must be 1 or auto for the lightning backend, got {machine.devices}; "
                "training on several devices is not there yet, set train.devices: 1"
            )
        return LightningStack(trials, data, machine, torch.device(self.devices()[0]))

    def versions(self) -> dict[str, str]:
        """Python's, torch's and Lightning's."""
        return {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pytorch-lightning": version("pytorch-lightning"),
        }

    def devices(self) -> list[str]:
        """Every GPU, then the processor."""
        return [*(f"cuda:{number}" for number in range(torch.cuda.device_count())), "cpu"]
