"""The record of a run while it happens: its process writes a journal, and another one sends it.

The process that trains opens no connection and imports no MLflow; a line costs it 20 µs. Nothing of this may end a run: what
cannot be written is told at the end, and the outs stand for it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from pipelines.project import project_of
from pipelines.record.creation import creation
from pipelines.record.events import epoch, events, opening
from pipelines.record.uploader import Uploader
from pipelines.redact import redact
from pipelines.spec import Experiment
from pipelines.stages.paths import RunPaths
from pipelines.tracking import provenance
from pipelines.tracking.backlog import journals, mark_killed
from pipelines.tracking.events import OUTS, Event, ended, killed
from pipelines.tracking.journal import Journal, Process

_CLAIM_SECONDS = 3
INTERRUPTED_SECONDS = 2.0


@dataclass(frozen=True)
class Outcome:
    """What became of the record: the run in MLflow if it is wholly there, else why not."""

    run_id: str | None = None
    warning: str = ""


class Recording:
    """One run's record; with tracking off it does nothing. `start`, `epoch` and `stage` tell it what happens, then one of
    `finish`, `fail` and `kill`, then `close`.

    `new_run` is for launches beside the pipeline. A run of the pipeline that was killed goes on where its journal ends.
    """

    def __init__(
        self, experiment: Experiment, places: RunPaths, *, new_run: bool = False, name: str | None = None, on: bool = True
    ) -> None:
        self.experiment, self.places, self.new_run, self.name = experiment, places, new_run, name
        self.on = on and experiment.tracking.enabled
        self.patience = math.inf
        self.root = places.root.resolve()
        self.project = places.project or project_of(self.root)
        self.journal: Journal | None = None
        self.failure = ""
        self._uploader: Uploader | None = None
        self._epochs: set[int] = set()  # that are told
        self._folds: dict[int, list[dict[str, float]]] = {}
        self._networks = 1
        if self.on:
            with self._surviving():
                self._uploader = Uploader(self.experiment.tracking)

    def start(self, fingerprint: str, networks: int) -> None:
        """Training begins: of so many networks, one a fold."""
        if not self.on:
            return
        self._networks = networks
        with self._surviving():
            mark_killed(self.project)
            if not self.new_run:  # a launch kept them as it began
                provenance.keep(self.root, "dvc.yaml", fingerprint)
            first, *rest = opening(self.places, self.experiment, fingerprint)
            create = creation(first, self.root, self.project, self.experiment, new_run=self.new_run, name=self.name)
            begin = Event("begin", "create", {"process": asdict(Process.this()), "command": provenance.command_line(sys.argv)})
            known = [begin, *rest]
            self.journal = self._gone_on(create, known) or Journal.create(self.project, [create, *known], self.root)
            self._epochs = {event.step for event in self.journal.read() if event.kind == "metrics" and event.step}
            if self._uploader:
                self._uploader.begin(self.journal)

    def _gone_on(self, create: Event, begin: Sequence[Event]) -> Journal | None:
        """The journal of this run of the pipeline, if it was killed while it trained."""
        for journal in [] if self.new_run else journals(self.project):
            if journal.head().get("identity") != create.values["identity"]:
                continue
            with journal.claim(_CLAIM_SECONDS) as ours:
                state = journal.state() if ours else None
                if state and state.status == "KILLED" and not state.outs:
                    journal.mend()
                    journal.append(begin[:1])
                    journal.add(begin[1:], self.root)
                    return journal
        return None

    def epoch(self, record: dict[str, float]) -> None:
        """An epoch is over; of folds it is told when it is over in each."""
        if self.journal is None:
            return
        step = int(record["epoch"])
        rows = self._folds.setdefault(step, [])
        rows.append(record)
        if len(rows) < self._networks:
            return
        del self._folds[step]
        if step not in self._epochs and not self.failure:
            with self._surviving():
                self._epochs.add(step)
                self.journal.append([epoch(rows)])

    def stage(self) -> None:
        """A stage is over: what its outs tell beyond what is told."""
        if self.journal is not None and self.places.run.exists():
            with self._surviving():
                create, *rest, _ = events(self.places, self.experiment)
                self.journal.add([Event("tags", "create", {OUTS: create.values["outs"]}), *rest], self.root)

    def finish(self) -> None:
        """The run is over, and its outs tell how."""
        if self.journal is not None:
            self.stage()
            with self._surviving():
                self._end([events(self.places, self.experiment)[-1]])

    def fail(self, message: str) -> None:
        """The run ended with an error."""
        self._end(ended("FAILED", "failed", redact(message)))

    def kill(self, message: str) -> None:
        """The run was told to end: whoever did so waits for it."""
        self._end(killed(message))
        self.patience = INTERRUPTED_SECONDS

    def _end(self, last: Sequence[Event]) -> None:
        if self.journal is not None:
            with self._surviving():
                self.journal.append(last)
                self.journal.sync()

    def close(self, leave: bool = True) -> Outcome:
        """Wait for the sender as long as the store answers; what is left it sends after that. Without `leave` it ends at once."""
        complaint = self._uploader.close(self.patience if leave else 0, leave) if self._uploader else ""
        outcome = self._outcome(self.journal, complaint) if self.journal else Outcome(warning=self.failure)
        self._clear_earlier()
        return outcome

    def _clear_earlier(self) -> None:
        """Runs of this process that waited, as a notebook's do, may have been sent by this one's uploader."""
        with self._surviving():
            for journal in journals(self.project) if self.on else ():
                with journal.claim() as ours:
                    if ours:
                        journal.clear()

    def _outcome(self, journal: Journal, complaint: str) -> Outcome:
        with self._surviving():
            sent = journal.sent()
            if journal.done():
                with journal.claim(_CLAIM_SECONDS) as ours:
                    if ours:
                        journal.remove()
                return Outcome(sent.run_id, self.failure)
            if not (head := journal.head()):  # removed by hand
                return Outcome(sent.run_id, self.failure)
            waiting, name = journal.state().events - sent.events, head["name"]
            reason = sent.error or complaint or "it did not answer in time"
            return Outcome(
                None, f"{waiting} events of the run {name!r} wait for the store ({reason}); `deltarule sync` sends them"
            )
        return Outcome(None, self.failure)

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """A journal that cannot be written is no reason to end a run."""
        try:
            yield
        except OSError as error:
            self.failure = f"the log of the run could not be written ({error}); `deltarule sync` puts it on record from its outs"
