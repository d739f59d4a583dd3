"""Where a run was computed: what its last bits depend on beside the spec, the data and the source."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Backend, Machine, threads_for
from backends.spec import Trial


def versions(backend: Backend) -> dict[str, str]:
    """Name -> version of all that numbers come from."""
    return {"python": platform.python_version(), "numpy": np.__version__, **backend.versions()}


def environment(backend: Backend, trial: Trial, machine: Machine) -> dict[str, Any]:
    """Processor, its vector instructions, threads, devices, system."""
    return {
        "cpu": processor(),
        "isa": instructions(),
        "threads": threads_for([trial], machine),
        "devices": backend.devices(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def instructions() -> str:
    """The newest vector instructions that NumPy finds here."""
    simd: Any = np.show_config(mode="dicts")
    found = simd["SIMD Extensions"]
    return str([*found.get("baseline", ()), *found.get("found", ())][-1])
