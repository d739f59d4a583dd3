"""Python processes of ours import the packages that this process uses, wherever it was started and whatever lies there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = str(Path(__file__).resolve().parents[1])


def command(*arguments: str) -> list[str]:
    """Python with these arguments. -P: not a folder `pipelines/` or `backends/` that lies in the current one."""
    return [sys.executable, "-P", *arguments]


def environment() -> dict[str, str]:
    """This process's, with our packages before all else that PYTHONPATH names."""
    path = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path}
