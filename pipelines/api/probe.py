"""Which backends work here. Each one's framework is imported in a process of its own, all at once."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
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


def look_at_all() -> list[dict[str, Any]]:
    """Every registered backend: its name, installed, versions, devices, and a message of what to do."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(look, backends.registered()))


def look(name: str) -> dict[str, Any]:
    """Import one backend in a process of its own, and ask it."""
    command, environment = children.command("-c", LOOK, name), children.environment()
    found: dict[str, Any] = {"name": name, "installed": False, "versions": {}, "devices": [], "message": ""}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=True)
    except subprocess.TimeoutExpired:
        return {**found, "message": f"importing it took more than {SECONDS} seconds"}
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        return {**found, "message": f"importing it failed: {last}"}
    return {**found, **json.loads(done.stdout.strip().splitlines()[-1])}
