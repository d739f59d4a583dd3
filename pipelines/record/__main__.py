"""The process that sends a journal to MLflow while it grows: started by uploader.py, which says how it is called."""

from __future__ import annotations

import gc
import os
import sys

if __name__ == "__main__":
    # It imports and draws, and most of what that makes lives on: to look for the rest more often takes a tenth of its time.
    gc.set_threshold(100_000)
    from pipelines.record.sending import follow

    os.nice(int(sys.argv[2]))
    follow(int(sys.argv[1]), sys.stdin)
    os._exit(0)  # nothing is left to do: to take modules apart takes 50 ms
