"""PyTorch through Lightning: K networks as one stacked network, driven by a Trainer."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

# Before torch's first product. MKL's products then do not depend on how matrices lie in memory, so a trial has the same
# bits in a stack as alone; it cost nothing that could be measured (16 x 32x64x128: 90 µs with and without).
os.environ.setdefault("MKL_CBWR", "AUTO")

import torch
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from backends.base import Backend, Data, Machine, NDArray
from backends.errors import BackendError
from backends.lightning.network import to_torch
from backends.lightning.stack import LightningStack
from backends.spec import Trial

__all__ = ["Lightning"]


CPU_RANKS_A_CORE = 4  # processes that only wait for each other; enough to try a cluster's number out


class Lightning(Backend):
    """One GPU if there is one, else the processor; with train.devices, so many GPUs, or processes on the processor."""

    name = "lightning"

    def stack(self, trials: Sequence[Trial], data: Data | None = None, machine: Machine | None = None) -> LightningStack:
        """Raises BackendError for more devices than there are, and for float16 products without a GPU."""
        machine = machine or Machine()
        device = torch.device(self.devices()[0])
        if TorchElasticEnvironment.detect():  # this process is one of the ranks
            device = torch.device(device.type, TorchElasticEnvironment().local_rank()) if device.type == "cuda" else device
        else:
            self._check_devices(machine, device)
        if data is not None and trials[0].train.precision == "16-mixed" and device.type == "cpu":
            raise BackendError("train.precision: 16-mixed needs a GPU, found none; set train.precision: bf16-mixed, or float32")
        return LightningStack(trials, data, machine, device)

    def _check_devices(self, machine: Machine, device: torch.device) -> None:
        on_gpus = device.type == "cuda"
        most = torch.cuda.device_count() if on_gpus else CPU_RANKS_A_CORE * (os.cpu_count() or 1)
        if machine.devices != "auto" and machine.devices > most:
            what = "one a GPU" if on_gpus else f"{CPU_RANKS_A_CORE} processes a core"
            raise BackendError(
                f"train.devices must be at most {most} here ({what}) for the lightning backend, got {machine.devices}; "
                f"set train.devices: {most}, or auto for one"
            )

    def versions(self) -> dict[str, str]:
        """Python's, torch's and Lightning's."""
        return {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pytorch-lightning": version("pytorch-lightning"),
        }

    def devices(self) -> list[str]:
        return [*(f"cuda:{number}" for number in range(torch.cuda.device_count())), "cpu"]

    def save(self, trial: Trial, flat: NDArray, stem: Path) -> Path:
        """`to_torch`'s module as STEM.pt2, for any number of rows; torch.export.load reads it, in Python or C++."""
        module, path = to_torch(trial, flat), stem.with_name(f"{stem.name}.pt2")
        rows = torch.zeros(2, trial.inputs, dtype=torch.from_numpy(flat[:0]).dtype)  # of 1, export would make a constant
        program = torch.export.export(module, (rows,), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},))
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.export.save(program, path)
        return path
