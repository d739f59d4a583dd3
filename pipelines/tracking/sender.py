"""Brings a journal to MLflow, from where the last sender left off. It may be killed anywhere, and called again.

A point goes with the time at which it happened, and MLflow keeps two equal points of one time once; so what was sent and
not yet noted, or sent without an answer, is simply sent again.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipelines.tracking import uploader
from pipelines.tracking.events import Event, carried
from pipelines.tracking.journal import OUTS, Journal, Sent
from pipelines.tracking.store import Store, TrackingError, answering, check, connect

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from pipelines.stages.paths import RunPaths

ORIGIN, LOG = "deltarule.origin", "deltarule.log"
EVENTS_A_PASS = 1000  # between two passes others can have the store
# For how long a sender may not be heard of: while the store is asked, and while it works here (imports, draws, makes a database).
ASKING_SECONDS, WORKING_SECONDS = 4.0, 120.0
BUSY_SECONDS = 15.0  # this machine, with a database's share of the work
BYTES_A_SECOND = 5e6  # at least, of a large artifact
Beat = Callable[[float], None]


class Sender:
    """Sends one journal, which its process has claimed; `places` are its files as the outs of a run."""

    def __init__(
        self,
        journal: Journal,
        store: Store,
        places: RunPaths,
        beat: Beat = lambda seconds: None,
    ) -> None:
        self.journal, self.store, self.places, self.beat = journal, store, places, beat
        self.head: dict[str, Any] = journal.head() or {}
        digest = hashlib.sha256(f"{store.uri} {store.experiment}".encode()).hexdigest()[:16]
        sent = journal.sent()
        self.sent = sent if sent.store == digest else Sent(digest)
        self._run: Run | None = None
        self._held: uploader.Held | None = None
        self._drawn: dict[str, bytes] = {}
        self._experiment_id = self._status = ""

    @property
    def run_id(self) -> str | None:
        """Of the run in MLflow, once there is one."""
        return self.sent.run_id

    def send(self) -> None:
        """Send all that is there. Raises TrackingError if the store fails, and notes it beside the journal."""
        try:
            while passing := self._next():
                if not self._send(passing):
                    return
        except TrackingError as error:
            self._note(error=error.reason, since=self.sent.since or int(time.time() * 1000))
            raise

    def _note(self, **changes: Any) -> None:
        self.sent = replace(self.sent, **changes)
        self.journal.note(self.sent)

    def _next(self) -> list[tuple[Event, int]]:
        """Events up to the next mark, and not too many."""
        passing: list[tuple[Event, int]] = []
        for event, end in self.journal.after(self.sent.offset):
            passing.append((event, end))
            if event.kind == "mark" or len(passing) == EVENTS_A_PASS:
                break
        return passing

    def _send(self, passing: Sequence[tuple[Event, int]]) -> bool:
        """Whether it was sent; it is not yet, where an equal run is on record and this one may turn out to be the same."""
        events = [event for event, _ in passing]
        with self._asking() as client:
            if self._run is None:
                self._run = self._find(client)
            if self._run is None:
                return False
            self._held = self._held or uploader.Held(client, self._run)
            self._status = self._status or self._run.info.status
            mark = self._mark(events)
            if mark is None or not mark.items() <= self._run.data.tags.items():
                self.beat(self._seconds + self._bytes(events) / BYTES_A_SECOND)
                uploader.send_stage(client, self._run, events, self.journal.files, self._held)
            else:
                mark = None
        if mark is not None and self.places.run.is_file():  # without the lock: it takes seconds
            self.beat(WORKING_SECONDS)
            with answering(self.store, self.doing):
                uploader.send_figures(client, self._run, events[-1].stage, self.places, self._drawn)
                if events[-1].stage == "train":
                    self._send_files(client, self._run)
        with self._asking() as client:
            uploader.send_tags(client, self._run, mark or {})
            self._set_status(client, events)
            self._note(offset=passing[-1][1], events=self.sent.events + len(events), error="", since=0)
        return True

    def _send_files(self, client: MlflowClient, run: Run) -> None:
        """Files of the network: made here, since that takes seconds too, and the run's own process has ended its work."""
        self.places.carry(self.head.get("files", ()))
        found = list(carried(self.places))
        if found:
            uploader.send_stage(client, run, found[:-1], self.places.root, self._held)
            uploader.send_tags(client, run, self._mark(found) or {})

    @property
    def doing(self) -> str:
        """What failed, if it fails."""
        return f"the run {self.head['name']!r} is not wholly on record"

    @contextmanager
    def _asking(self) -> Iterator[MlflowClient]:
        """A client, with the store to itself; every way in which it fails is a TrackingError."""
        making = self.store.database is not None and not self.store.database.exists()
        self.beat(WORKING_SECONDS if making else ASKING_SECONDS)
        with answering(self.store, self.doing), self.store.lock():
            check(self.store)
            self.beat(self._seconds)
            client, self._experiment_id = connect(self.store)
            yield client

    @property
    def _seconds(self) -> float:
        """How long the store may take: a database that is not locked is only as slow as this machine."""
        return ASKING_SECONDS if self.store.database is None else WORKING_SECONDS if self._run is None else BUSY_SECONDS

    def _mark(self, events: Sequence[Event]) -> dict[str, str] | None:
        """The tag that says that a stage is wholly on record, where the events come to that."""
        last = events[-1]
        return {f"deltarule.recorded.{last.stage}": last.values["outs"]} if last.kind == "mark" else None

    def _bytes(self, events: Sequence[Event]) -> int:
        files = [self.journal.files / below for event in events if event.kind == "artifacts" for below in event.values.values()]
        return sum(file.stat().st_size for file in files)

    def _set_status(self, client: MlflowClient, events: Sequence[Event]) -> None:
        last = next((event for event in reversed(events) if event.kind in ("begin", "end")), None)
        if last is None or self._run is None:
            return
        run_id, status = self._run.info.run_id, "RUNNING" if last.kind == "begin" else last.values["status"]
        if status == self._status or (last.kind == "begin" and self._status in ("FINISHED", "FAILED")):
            return  # what is trained again, and comes to the same, is over as it was
        if last.kind == "end" and self.journal.state().process is not None:
            client.set_terminated(run_id, status, last.time)
        else:
            # Outs know no times: with an end, the run would seem to have lasted as long as this upload.
            client.update_run(run_id, status)
        self._status = status

    # -- which run ----------------------------------------------------------------------------------------------------

    def _find(self, client: MlflowClient) -> Run | None:
        """The run that this is, or a new one; None as long as that cannot be told."""
        if self.sent.run_id:
            return client.get_run(self.sent.run_id)
        identity = dict(self.head["identity"])
        outs = self.journal.state().outs
        if outs:
            identity[OUTS] = outs
        run = self._given(client, identity) or self._search(client, {LOG: self.journal.id}) or self._equal(client, identity)
        if run is None and not self._may_be_equal(client, identity):
            run = self._create(client, identity)
        if run is not None:
            self._note(run_id=run.info.run_id)
        return run

    def _given(self, client: MlflowClient, identity: dict[str, str]) -> Run | None:
        run_id = os.environ.get("MLFLOW_RUN_ID")
        if not run_id or run_id != self.head["given"]:
            return None
        return uploader.given(client, run_id, identity, [key for key in ("deltarule.fingerprint", OUTS) if key in identity])

    def _equal(self, client: MlflowClient, identity: dict[str, str]) -> Run | None:
        """The pipeline's run of this experiment: with the same outs, or one that was killed, and goes on."""
        if identity[ORIGIN] != "pipeline":
            return None
        found = self._search(client, identity) if OUTS in identity else None
        if found is None and self.journal.state().process is not None:
            found = self._search(client, {**identity, "deltarule.ended": "killed"}, "KILLED")
        return found

    def _may_be_equal(self, client: MlflowClient, identity: dict[str, str]) -> bool:
        """Whether it trains what the pipeline has on record already: the outs will tell, at its end."""
        if identity[ORIGIN] != "pipeline" or OUTS in identity or self.journal.state().status is not None:
            return False
        return self._search(client, identity, "FINISHED") is not None

    def _search(self, client: MlflowClient, tags: dict[str, str], status: str | None = None) -> Run | None:
        """The first run that has these tags, and this status if one is given."""
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = client.search_runs([self._experiment_id], wanted, order_by=["attributes.start_time ASC"])
        return next((run for run in found if status in (None, run.info.status)), None)

    def _create(self, client: MlflowClient, identity: dict[str, str]) -> Run:
        first = next(self.journal.read())
        tags = {**identity, **self.head["tags"], LOG: self.journal.id}
        return client.create_run(self._experiment_id, start_time=first.time, tags=tags, run_name=self.head["name"])
