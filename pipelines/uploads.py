"""The process that sends a run to MLflow while it goes on: started by tracking.live, which says how it is called."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # It imports and draws, and most of what that makes lives on: to look for the rest more often takes a tenth of its time.
    gc.set_threshold(100_000)
    from pipelines.stages.paths import RunPaths
    from pipelines.tracking.live import follow

    follow(int(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2] else None, sys.stdin, RunPaths)
    os._exit(0)  # the run waits for it, and nothing is left to do: to take modules apart takes 50 ms
