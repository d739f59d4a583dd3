"""The process that sends a run's journal while the run goes on, and how the run's process starts and ends it.

MLflow follows the run within seconds, and the run does not wait: a store that is absent, hangs or is locked holds up this
process alone. It says until when it will be heard of next (`beat`); the run, at its end, waits no longer than that.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from backends import children
from pipelines.spec import Tracking
from pipelines.tracking.journal import LOG, Journal, journals
from pipelines.tracking.record import store_of
from pipelines.tracking.redact import redact
from pipelines.tracking.sender import WORKING_SECONDS, Beat, Sender
from pipelines.tracking.store import Store, TrackingError, locate, warm

if TYPE_CHECKING:
    from pipelines.stages.paths import RunPaths

MODULE = "pipelines.uploads"  # which knows the outs of stages, as this package does not
BEAT = "beat"
POLL_SECONDS, LONGEST_PAUSE = 0.5, 15.0
_LOOK_SECONDS = 0.1
_CLAIM_SECONDS = 5
NICE = 4  # training goes first; with 10 it starves on a busy machine, and then the run waits for it
OTHERS_SECONDS = 20.0  # for earlier runs that wait, after the end of this one


class Uploader:
    """The sending process as the run's process sees it."""

    def __init__(self, tracking: Tracking, project: Path) -> None:
        """Starts it: it imports MLflow, which takes seconds, while the run reads its data."""
        self.journal: Journal | None = None
        self._began = time.monotonic()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        environment = children.environment()
        if tracking.uri and redact(tracking.uri) != tracking.uri:  # of which a journal keeps no password
            environment.setdefault("MLFLOW_TRACKING_URI", tracking.uri)
        self._process = subprocess.Popen(
            children.command("-m", MODULE, str(os.getpid()), str(locate(tracking, project).database or "")),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            process_group=0,  # Ctrl-C is for the run: it says then how it ended
        )

    def begin(self, journal: Journal) -> None:
        """This is what it is to send."""
        self.journal = journal
        assert self._process.stdin is not None
        self._process.stdin.write(f"{journal.folder}\n".encode())
        self._process.stdin.flush()

    def close(self, patience: float) -> None:
        """Wait until all is sent, or it is past its time, or `patience` in s is over; then end it."""
        ends = time.monotonic() + patience
        try:
            while self.journal and self._process.poll() is None and time.monotonic() < min(ends, self._until(self.journal)):
                time.sleep(0.02)
        finally:
            self._process.kill()  # at any point: what it sent and did not note is sent again, and kept once
            with suppress(BrokenPipeError):
                self._process.communicate()
            self._said.seek(0)
            self._lines = self._said.read().decode(errors="replace").strip().splitlines()
            self._said.close()

    def _until(self, journal: Journal) -> float:
        try:
            return float((journal.folder / BEAT).read_text())
        except (OSError, ValueError):
            return self._began + WORKING_SECONDS

    @property
    def complaint(self) -> str:
        """The last line that it said, if it ended by a mistake of its own; call it after `close`."""
        return redact(self._lines[-1]) if self._lines else ""


def follow(run: int, database: Path | None, given: IO[str], places_of: Callable[[Path], RunPaths]) -> None:
    """Send the journal whose folder is `given`, as it grows, until its run is over; then those that wait for the same store.

    `run` is the id of the run's process: with it, this one ends. `database`: that of the store. `places_of` gives
    the outs below a folder.
    """
    threading.Thread(target=_end_with, args=(run,), daemon=True).start()
    os.nice(NICE)
    warm(database)
    folder = given.readline().strip()
    if not folder:
        return  # the run did not come to its training
    journal = Journal(Path(folder))
    beat = _beating(journal.folder / BEAT)
    project = journal.folder.parents[len(LOG.parts)]
    with journal.claim(_CLAIM_SECONDS) as ours:
        if ours:
            store = store_of(journal, project, Tracking())
            if _follow(Sender(journal, store, places_of(journal.files), beat)):
                _send_others(journal, store, project, places_of, beat)


def _send_others(journal: Journal, store: Store, project: Path, places_of: Callable[[Path], RunPaths], beat: Beat) -> None:
    """The runs that wait for the same store."""
    ends = time.monotonic() + OTHERS_SECONDS
    same = (journal.head() or {})["tracking"]
    for other in journals(project):
        with other.claim() as ours:
            if ours and (other.head() or {})["tracking"] == same and not other.state().running:
                sender = Sender(other, store, places_of(other.files), lambda s: beat(min(s, ends - time.monotonic())))
                with suppress(TrackingError):
                    sender.send()
                other.clear()


def _follow(sender: Sender) -> bool:
    """Whether all was sent, in the end."""
    journal, pause, size = sender.journal, POLL_SECONDS, -1
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


def _end_with(run: int) -> None:
    """End when the run's process is gone. Anywhere: what was sent and not noted is sent again, and kept once."""
    while os.getppid() == run:
        time.sleep(_LOOK_SECONDS)
    os._exit(0)


def _beating(path: Path) -> Beat:
    """Writes until when this process will be heard of next; the clock is the same for all processes of a host."""

    def beat(seconds: float) -> None:
        written = path.with_suffix(".new")
        written.write_text(str(time.monotonic() + seconds))
        written.replace(path)

    return beat
