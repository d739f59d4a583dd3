"""The process that sends a run to MLflow while it goes on: python -m pipelines.uploads JOURNAL PID-OF-THE-RUN."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.stages.places import Places
from pipelines.tracking.journal import Journal
from pipelines.tracking.live import follow

if __name__ == "__main__":
    follow(Journal(Path(sys.argv[1])), int(sys.argv[2]), Places)
