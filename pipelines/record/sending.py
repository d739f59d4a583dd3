"""Sends journals, with figures, page and model made of the outs on the way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipelines.export import carry
from pipelines.record.events import carried
from pipelines.redact import redact
from pipelines.report import figures, run_page
from pipelines.spec import Tracking
from pipelines.stages.paths import RunPaths
from pipelines.tracking.backlog import journals, mark_killed, title
from pipelines.tracking.events import TAG_CHARACTERS, Event
from pipelines.tracking.journal import Journal
from pipelines.tracking.sender import Sender
from pipelines.tracking.store import Refused, Store, TrackingError, answering, store_of

CLAIM_SECONDS = 30  # for the sender of a run that is over, which may still be at work
_ATTEMPTS = 2  # at one store: a run can be refused for a reason of its own, and a store that hangs costs 8 s each time
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


def deliver(journal: Journal, store: Store) -> str | None:
    """Send a journal that this process has claimed, and remove it if its run is over. Raises TrackingError; it then waits."""
    sender = RunSender(journal, store)
    with answering(store, sender.sender.doing), store.turn():
        run_id = sender.send()
    journal.clear()
    return run_id


def send_waiting(project: Path, tracking: Tracking, seconds: float = CLAIM_SECONDS) -> Iterator[tuple[str, str | None]]:
    """Send the journals that wait: (folder of the launch or study, or name of the pipeline's run; id in MLflow) of each.

    Runs of this host whose process is gone end as KILLED first; who is sending one is waited for so many `seconds`. Raises
    TrackingError at the end if a store failed; it is not asked a third time.
    """
    mark_killed(project)
    failures: list[TrackingError] = []
    attempts = 0
    for journal in journals(project):
        if journal.state().running:
            continue
        known = title(journal.head())
        with journal.claim(seconds) as ours:
            if ours and attempts < _ATTEMPTS:
                try:
                    run_id = deliver(journal, store_of(journal.head(), tracking, project))
                except TrackingError as error:
                    failures.append(error)
                    attempts += not isinstance(error, Refused)
                else:
                    yield known, run_id
    if failures:
        rest = len(journals(project)) - 1
        told = f"; {rest} more may wait, see `deltarule sync --status`" if rest > 0 else ""
        given_up = "; a run whose store will not come back is given up by `deltarule sync --drop RUN`"
        raise TrackingError(f"{failures[0]}{told}{given_up}", failures[0].reason)
