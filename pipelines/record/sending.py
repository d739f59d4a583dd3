"""Sends journals, with figures, page and model made of the outs on the way: here, or in a process beside the run."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pipelines.export import carry
from pipelines.record.events import carried
from pipelines.redact import redact
from pipelines.report import figures, run_page
from pipelines.spec import Tracking
from pipelines.stages.paths import RunPaths
from pipelines.tracking.backlog import journals
from pipelines.tracking.events import TAG_CHARACTERS, Event
from pipelines.tracking.journal import LOG, Journal
from pipelines.tracking.sender import Sender
from pipelines.tracking.store import Refused, Store, TrackingError, import_mlflow, store_of

POLL_SECONDS, LONGEST_PAUSE = 0.5, 15.0
_LOOK_SECONDS = 0.1
_CLAIM_SECONDS = 5
DRAWN = ("train", "validate", "test")
PAGE = "report.html"


class RunSender:
    """A journal's sender, which adds what is made of the outs of each stage."""

    def __init__(self, journal: Journal, store: Store) -> None:
        self.sender = Sender(journal, store)
        self.places = RunPaths(journal.files)
        self._drawn: dict[str, bytes] = {}

    def send(self) -> str | None:
        """Send all that is there; the id of the run in MLflow. Raises TrackingError if the store fails."""
        for stage in self.sender.send():
            if stage in DRAWN and self.places.run.is_file():
                with tempfile.TemporaryDirectory() as scratch:
                    self.sender.put(list(self._pictures(stage, Path(scratch))), Path(scratch))
            if stage == "train" and self.places.run.is_file():
                carry(self.places, self.sender.head.get("files", ()))
                self.sender.put(list(carried(self.places)), self.places.root)
        return self.sender.run_id

    def _pictures(self, stage: str, folder: Path) -> Iterator[Event]:
        """What the outs of a stage show, and the page of the run. What cannot be drawn costs no record: a tag says why."""
        try:
            if not self._drawn:  # those of earlier stages are wanted in the page
                self._drawn |= figures(self.places.root, DRAWN[: DRAWN.index(stage)])
            now = figures(self.places.root, (stage,))
            self._drawn |= now
            page = run_page(self.places.root, self._drawn)
        except Exception as error:
            why = redact(f"{stage}: {type(error).__name__}: {error}")[:TAG_CHARACTERS]
            yield Event("tags", stage, {"deltarule.not_drawn": why})
            return
        for name, png in now.items():
            (folder / f"{name}.png").write_bytes(png)
        yield Event("artifacts", stage, {f"figures/{name}.png": f"{name}.png" for name in now})
        yield Event("text", stage, {PAGE: page})


# -- beside the run --------------------------------------------------------------------------------------------------------


def follow(run: int, given: IO[str]) -> None:
    """Send the journal that `given` names, as it grows, until its run is over; then those that wait for the same store.

    `run` is the id of the run's process. If that goes without having said how the run ended, this one ends.
    """
    warming = threading.Thread(target=_warm, daemon=True)
    warming.start()
    told = json.loads(given.readline() or "{}")
    if "journal" not in told:
        return  # the run did not come to its training
    journal, tracking = Journal(Path(told["journal"])), Tracking.model_validate(told["tracking"])
    threading.Thread(target=_end_with, args=(run, journal), daemon=True).start()
    project = journal.folder.parents[len(LOG.parts)]
    with journal.claim(_CLAIM_SECONDS) as ours:  # at once: who looks whether a run is being sent looks at the claim
        warming.join()
        sent = ours and _follow(RunSender(journal, store_of(journal.head(), tracking, project)))
        if ours:
            journal.beat(0)
            journal.clear()
    if sent:
        _send_others(project, tracking)


def _warm() -> None:
    """Import what a sender needs while no store has to be waited for."""
    import_mlflow()


def _follow(sender: RunSender) -> bool:
    """Whether all was sent, in the end."""
    journal, pause, size = sender.sender.journal, POLL_SECONDS, -1
    while True:
        over = journal.over()  # before it is read: what came later is looked for again
        size = journal.path.stat().st_size
        try:
            sender.send()
            pause = POLL_SECONDS
        except TrackingError:
            if over:
                return False
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            if over:
                return True
        _wait(journal, pause, size if pause == POLL_SECONDS else -1)


def _wait(journal: Journal, pause: float, size: int) -> None:
    """At least `pause`, and until there is more than `size`; the end of the run is reason to go on at once."""
    began = time.monotonic()
    while not journal.over():
        if time.monotonic() - began >= pause and journal.path.stat().st_size > size:
            return
        time.sleep(_LOOK_SECONDS)


def _send_others(project: Path, tracking: Tracking) -> None:
    """The runs that wait for the same store, as long as it takes them."""
    for other in journals(project):
        with other.claim() as ours:
            if ours and not other.state().running:
                try:
                    RunSender(other, store_of(other.head(), tracking, project)).send()
                except Refused:
                    continue
                except TrackingError:
                    return
                other.clear()


def _end_with(run: int, journal: Journal) -> None:
    """End when the run's process is gone and did not say how the run ended. Anywhere: what was sent is kept once."""
    while os.getppid() == run or journal.over() or not journal.path.exists():
        time.sleep(_LOOK_SECONDS)
    os._exit(0)
