"""Which backends work here. Each one's framework is imported in a process of its own, all at once."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import backends
from backends import children

# What a process that looks at one backend carries out.
LOOK = """
import json, sys, backends
try:
    backend = backends.get(sys.argv[1])
    found = {"installed": True, "versions": backend.versions(), "devices": backend.devices()}
except backends.BackendError as error:
    found = {"installed": False, "message": str(error)}
print("\\n" + json.dumps(found))
"""
SECONDS = 120


@dataclass(frozen=True)
class Found:
    """One registered backend, as it is on this machine."""

    name: str
    installed: bool
    versions: dict[str, str] = field(default_factory=dict)
    devices: list[str] = field(default_factory=list)
    message: str = ""  # what to do, if it is not installed

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def look_at_all() -> list[Found]:
    """Every registered backend, in the order of the registry."""
    names = list(backends.registered())
    with ThreadPoolExecutor(max(1, len(names))) as pool:
        return list(pool.map(look, names))


def look(name: str) -> Found:
    """Import one backend in a process of its own, and ask it."""
    command, environment = children.command("-c", LOOK, name), children.environment()
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Found(name, False, message=f"importing it took more than {SECONDS} seconds")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Found(name, False, message=f"importing it failed: {last}")
    return Found(name, **json.loads(done.stdout.strip().splitlines()[-1]))
