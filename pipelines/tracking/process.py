"""Which process writes a log, and whether it still lives: host, process id and start time tell; an id alone is used again."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Process:
    """A process of some host. `started` differs between two processes that had the same id, also over a restart of the host."""

    host: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Process:
        """The one that asks."""
        return cls(platform.node(), os.getpid(), _started(os.getpid()))

    @property
    def here(self) -> bool:
        """Whether it is, or was, of this host; of another one nothing more can be known."""
        return self.host == platform.node()

    def lives(self) -> bool:
        """Whether it is running now, on this host."""
        return self.here and _started(self.pid) == self.started != ""


def _started(pid: int) -> str:
    """When it started, as the system says it; "" if there is no such process, or only what its parent has not yet buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except ProcessLookupError:
        return ""
    except OSError:
        return "" if _BOOT.exists() else _asked(pid)
    return "" if fields[0] in "ZX" else f"{_BOOT.read_text().strip()} {fields[19]}"  # field 22 of proc(5)


def _asked(pid: int) -> str:
    """Where there is no /proc."""
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True)
    return done.stdout.strip()
