"""The process that sends a run to MLflow while it goes on: started by tracking.live, which says how it is called."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.stages.places import Places
from pipelines.tracking.live import follow

if __name__ == "__main__":
    follow(int(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2] else None, sys.stdin, Places)
