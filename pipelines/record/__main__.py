"""The process that sends a journal; `Uploader` starts it."""

from __future__ import annotations

import fcntl
import gc
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from pipelines.record.sync import RunSender, send_waiting
from pipelines.spec import Tracking
from pipelines.tracking.journal import LOG, Journal
from pipelines.tracking.sender import measure
from pipelines.tracking.store import Busy, TrackingError, import_mlflow, store_of

# Training goes first, but for what a run waits for at its end: its id in MLflow.
RUN_NICE, STUDY_NICE = 4, 19
POLL_SECONDS, LONGEST_PAUSE, LOOK_SECONDS = 0.5, 15.0, 0.1


def main(folder: Path, claim: int, tracking: Tracking) -> None:
    """Send the journal in `folder` until its run is over; `claim`: see Journal.claim_of_child."""
    journal, project = Journal(folder), folder.parents[len(LOG.parts)]
    threading.Thread(target=_end_with_its_run, args=(journal,), daemon=True).start()
    if journal.is_study:
        os.nice(STUDY_NICE)
    import_mlflow()
    fcntl.flock(claim, fcntl.LOCK_EX)
    if journal.path.is_file():
        sent = _follow(journal, RunSender(journal, store_of(journal.head(), tracking, project)))
        os.close(claim)
        if sent:
            with suppress(TrackingError):
                list(send_waiting(project, tracking, 0))


def _follow(journal: Journal, sender: RunSender) -> bool:
    """Whether all was sent, in the end."""
    pause = POLL_SECONDS
    while journal.path.exists():  # else someone removed it
        over = journal.over()  # before it is read: what came later is looked for again
        try:
            if run_id := sender.send():
                os.nice(max(0, RUN_NICE - os.nice(0)))
                measure(run_id, sender.store.uri)
            pause = POLL_SECONDS
        except TrackingError as error:
            pause = min(2 * pause, LONGEST_PAUSE)
            if over and not isinstance(error, Busy):
                return False
        else:
            if over:
                return True
        ends = time.monotonic() + pause
        while time.monotonic() < ends and not journal.over():
            time.sleep(LOOK_SECONDS)
    return False


def _end_with_its_run(journal: Journal) -> None:
    """End when the run's process is gone and did not say how the run ended: what was sent is kept once."""
    while journal.is_written() or journal.over() or not journal.path.exists():
        time.sleep(LOOK_SECONDS)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Tracking.model_validate_json(sys.stdin.read()))
    gc.freeze()  # as in cli/app.py
