"""The record of a run while it happens: its process writes a journal, and another one sends it.

The process that trains opens no connection and imports no MLflow; a line costs it 20 µs. Nothing of this may end a run, and a
run waits for no store: the sender goes on after the command has answered.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass

from backends import children
from pipelines.project import project_of
from pipelines.record.events import creation, ending, epoch, events, opening, outs_hash
from pipelines.redact import redact
from pipelines.spec import Experiment, Tracking
from pipelines.stages.files import read_json
from pipelines.stages.paths import RunPaths
from pipelines.tracking import provenance
from pipelines.tracking.events import OUTS, Event, ended, killed
from pipelines.tracking.journal import Journal, journals, mark_killed

GRACE_SECONDS = 1.0  # for the sender, at the end of a run
LONGEST_SECONDS = 60.0  # until it has found the run in MLflow, or what hinders it
_CLAIM_SECONDS, _LOOK_SECONDS = 3, 0.02
_left: list[subprocess.Popen[bytes]] = []  # senders that go on after their run


@dataclass(frozen=True)
class Outcome:
    """What became of the record."""

    run_id: str | None = None  # in MLflow, as far as that is known
    complete: bool = True  # else the sender goes on
    warning: str = ""


class Surviving:
    """Who writes a journal that may fail: that is no reason to end what it tells of."""

    warning = ""
    of = "run"

    @contextmanager
    def surviving(self) -> Iterator[None]:
        """What fails here is told in `warning`."""
        try:
            yield
        except OSError as error:
            self.warning = (
                f"the log of the {self.of} could not be written ({error}); `deltarule sync` puts it on record from its outs"
            )


class Uploader:
    """The process that sends a journal while it grows."""

    def __init__(self, journal: Journal, tracking: Tracking) -> None:
        self.journal = journal
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        claim = journal.claim_of_child()
        with tempfile.TemporaryFile() as given:  # the address of the store: a journal keeps no password
            given.write(tracking.model_dump_json().encode())
            given.seek(0)
            self.process = subprocess.Popen(
                children.command("-m", "pipelines.record", str(journal.folder), str(claim)),
                env=children.environment(),
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                pass_fds=(claim,),
                process_group=0,  # Ctrl-C is for the run: it says then how it ended
            )
        os.close(claim)

    def wait(self, grace: float, longest: float) -> None:
        """Until all is sent; after `grace` in s only until the run in MLflow is known, or what hinders it."""
        began = time.monotonic()
        while self.process.poll() is None and not self.journal.done():
            waited, sent = time.monotonic() - began, self.journal.sent()
            if waited >= longest or (waited >= grace and (sent.run_id or sent.error)):
                return
            time.sleep(_LOOK_SECONDS)

    def stop(self) -> None:
        """End it, at any point: what it sent and did not note is sent again, and kept once."""
        self.process.kill()
        self.process.wait()

    def close(self) -> str:
        """Leave it alone; the last line that it said, if it ended by a mistake of its own."""
        over = self.process.poll() is not None
        with self._said as said:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
        _left[:] = [process for process in (*_left, self.process) if process.poll() is None]
        return redact(lines[-1]) if over and lines else ""


@dataclass
class Recording(Surviving):
    """One run's record: `start`, `epoch`, `stage`, then one of `finish`, `fail` and `kill`, then `close`.

    `new_run` is for launches beside the pipeline. A run that was killed goes on where its journal ends: one of the pipeline
    that is the same, and the launch whose journal is called `log`.
    """

    experiment: Experiment
    places: RunPaths
    _: KW_ONLY
    new_run: bool = False
    name: str | None = None
    on: bool = True
    log: str | None = None

    def __post_init__(self) -> None:
        self.longest = LONGEST_SECONDS
        self.root = self.places.root.resolve()
        self.project = self.places.project or project_of(self.root)
        self.journal: Journal | None = None
        self.uploader: Uploader | None = None
        self._epochs: set[int] = set()  # that are told
        self._folds: dict[int, list[dict[str, float]]] = {}
        self._networks = 1

    def start(self, fingerprint: str, networks: int) -> None:
        """Training begins: of so many networks, one a fold."""
        if not (self.on and self.experiment.tracking.enabled):
            return
        self._networks = networks
        with self.surviving():
            mark_killed(self.project)
            if not self.new_run:  # a launch kept them as it began
                provenance.keep(self.root, "dvc.yaml", fingerprint)
            create = creation(self.places, self.experiment, fingerprint, self.new_run, self.name, None)
            begin = provenance.begin()
            journal = self._gone_on(create, begin)
            self.journal = journal or Journal.create(self.project, [create, begin], self.root, hold=True, name=self.log)
            self.journal.add(opening(self.places, self.experiment), self.root)
            told = [event for event in self.journal.read() if event.kind == "metrics"]
            self._epochs = {event.step for event in told if event.step}
            self.uploader = Uploader(self.journal, self.experiment.tracking)

    def _gone_on(self, create: Event, begin: Event) -> Journal | None:
        """The journal of this launch, or of this run of the pipeline, if it was killed."""
        for journal in journals(self.project):
            state, same = journal.state(), journal.head().get("identity") == create.values["identity"]
            killed = same and not self.new_run and state.status == "KILLED" and not state.outs
            if (killed or journal.id == self.log) and journal.go_on(begin, _CLAIM_SECONDS):
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
        if step not in self._epochs and not self.warning:
            with self.surviving():
                self._epochs.add(step)
                self.journal.append([epoch(rows)])

    def stage(self) -> None:
        """A stage is over: what its outs tell beyond what is told."""
        if self.journal is not None and self.places.run.exists():
            with self.surviving():
                *rest, _ = events(self.places, self.experiment)
                outs = Event("tags", "create", {OUTS: outs_hash(self.places.trained)})
                self.journal.add([outs, *rest], self.root)

    def finish(self) -> None:
        """The run is over, and its outs tell how."""
        if self.journal is not None:
            self.stage()
            with self.surviving():
                self._end([ending(read_json(self.places.run))])

    def fail(self, message: str) -> None:
        """The run ended with an error."""
        self._end(ended("FAILED", "failed", redact(message)))

    def kill(self, message: str) -> None:
        """The run was told to end: whoever did so waits for it."""
        self._end(killed(message))
        self.longest = 2 * GRACE_SECONDS

    def _end(self, last: Sequence[Event]) -> None:
        if self.journal is not None:
            with self.surviving():
                self.journal.append(last)
                self.journal.sync()

    def close(self, leave: bool = True) -> Outcome:
        """Wait for the sender, shortly; what is left it sends after that. Without `leave` it ends at once."""
        if self.journal is None:
            return Outcome(warning=self.warning)
        complaint = ""
        if self.uploader:
            if leave:
                self.uploader.wait(GRACE_SECONDS, self.longest)
            else:
                self.uploader.stop()
            complaint = self.uploader.close()
        outcome = Outcome(warning=self.warning)
        with self.surviving():
            outcome = self._outcome(self.journal, complaint)
            self.journal.release()
            if self.journal.done():  # else its sender removes it
                with self.journal.claim(_CLAIM_SECONDS) as ours:
                    if ours:
                        self.journal.clear()
        return outcome

    def _outcome(self, journal: Journal, complaint: str) -> Outcome:
        head, state, sent = journal.head(), journal.state(), journal.sent()
        if not journal.path.is_file() or journal.done():  # without its events: removed by hand
            return Outcome(sent.run_id, warning=self.warning)
        if self.uploader and self.uploader.process.poll() is None and not sent.error:
            return Outcome(sent.run_id, complete=False, warning=self.warning)
        reason = sent.error or complaint or "its sender was ended"
        waiting = f"{state.events - sent.events} events of the run {head['name']!r} wait for the store ({reason})"
        return Outcome(warning=f"{waiting}; `deltarule sync` sends them")
