"""A run's own log: what happened is written here first, and MLflow is told from here.

A run has a folder PROJECT/.deltarule/log/ID/ of its own, with events.jsonl, to which a line an event is only ever appended;
files/, links to the outs as they were, so that what waits depends on nothing that others change or remove; and sent.json,
how far it was sent. What is on record whole is removed. Nothing here knows MLflow.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from backends.weights import write_atomically
from pipelines.tracking.events import Event
from pipelines.tracking.process import Process
from pipelines.tracking.redact import without_secrets

LOG = Path(".deltarule/log")
EVENTS, FILES, SENT, CLAIM = "events.jsonl", "files", "sent.json", "claim"
OUTS = "deltarule.outs"
NAMED = ("params", "tags", "metrics", "text")  # kinds whose values have names, and are told once each
_TAIL_BYTES = 4096
_BURY_SECONDS = 3
_ABANDONED_SECONDS = 3600  # a folder without a first line: its writer died within a millisecond, or has just begun


@dataclass(frozen=True)
class Sent:
    """How far a journal was sent to one store, and what hindered the last attempt."""

    store: str = ""  # of which store and experiment this is true
    run_id: str | None = None
    offset: int = 0  # bytes of events.jsonl
    events: int = 0
    error: str = ""
    since: int = 0  # ms: when the first of the attempts failed of which none has succeeded since


@dataclass(frozen=True)
class State:
    """What the events of a journal come to."""

    events: int
    last: int  # ms: time of the last one
    size: int  # bytes that hold whole lines
    process: Process | None  # the last one that began or took up the run; None where it was written from outs
    status: str | None  # how it ended; None while it goes on
    outs: str | None  # hash of what train wrote, once it has

    @property
    def running(self) -> bool:
        """Whether its process is still at it, as far as anyone knows; that of another host may be."""
        return self.status is None and self.process is not None and (not self.process.here or self.process.lives())

    @property
    def dead(self) -> bool:
        """Whether its process is gone without a word."""
        return self.status is None and self.process is not None and self.process.here and not self.process.lives()


class Journal:
    """One run's log. One process appends at a time, and one sends: the holder of the claim."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, folder / FILES
        self.path = folder / EVENTS

    @property
    def id(self) -> str:
        """Its name, which its run in MLflow has as a tag."""
        return self.folder.name

    # -- writing ------------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, project: Path, events: Sequence[Event], root: Path) -> Journal:
        """A new one. The first event is the creation of the run; files are below `root`. It is there whole, or not at all."""
        journal = cls(project / LOG / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}")
        journal.files.mkdir(parents=True)
        journal._keep(events, root)
        journal.append(events)
        journal.sync()
        return journal

    def append(self, events: Iterable[Event]) -> None:
        """Write them, each with its time unless it has one: in one call, so that two writers do not mix their lines."""
        now = int(time.time() * 1000)
        lines = [json.dumps(asdict(event if event.time else replace(event, time=now))) + "\n" for event in events]
        # Opened anew for each: 20 µs, and nothing has to be closed when a notebook forgets the run.
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            _write(handle, "".join(lines).encode())
        finally:
            os.close(handle)

    def add(self, events: Sequence[Event], root: Path) -> None:
        """Append what is not told yet, and keep the files below `root` that it names."""
        told = self._told()
        # The same path can hold another file than the one kept: the mark of the stage, the hash of all its files, tells.
        whole = {event.stage for event in events if event.kind == "mark" and told.get(("mark", event.stage)) == event.values}
        fresh = [event for event in events if event.kind not in ("artifacts", "model") or event.stage not in whole]
        news = [one for event in fresh if (one := _unknown(event, told))]
        if news:
            self._keep(news, root)
            self.append(news)
            self.sync()

    def _keep(self, events: Sequence[Event], root: Path) -> None:
        for event in events:
            if event.kind == "artifacts":
                for below in event.values.values():
                    _keep(root / below, self.files / below)

    def _told(self) -> dict[tuple[Any, ...], Any]:
        """What the events so far say of each name; the later stands above the earlier."""
        told: dict[tuple[Any, ...], Any] = {}
        for event in self.read():
            _unknown(event, told)
        return told

    def sync(self) -> None:
        """Return when what was written is on the disk."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def mend(self) -> None:
        """Cut off a last line that was not written whole, before anything is appended to it."""
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(self.path, content.rfind(b"\n") + 1)

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self) -> Iterator[Event]:
        """Every event that is there whole."""
        return (event for event, _ in self.after(0))

    def after(self, offset: int) -> Iterator[tuple[Event, int]]:
        """(event, where its line ends) from a place in the file on. What is no event, after a power failure, is left out.

        Nothing, if another process has sent it all and removed it.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(offset)
            for line in file:
                offset += len(line)
                if not line.endswith(b"\n"):
                    return
                try:
                    yield Event(**json.loads(line)), offset
                except (ValueError, TypeError):
                    continue

    def head(self) -> dict[str, Any] | None:
        """The values of the creation; None if even that is not there whole."""
        first = next(self.read(), None)
        return first.values if first is not None and first.kind == "create" else None

    def state(self) -> State:
        """What it comes to now."""
        state = State(0, 0, 0, None, None, None)
        for event, end in self.after(0):
            state = replace(state, events=state.events + 1, last=event.time, size=end)
            if event.kind == "begin":
                state = replace(state, process=Process(**event.values["process"]), status=None)
            elif event.kind == "end":
                state = replace(state, status=event.values["status"])
            named = event.values.get("identity", {}) if event.kind == "create" else event.values
            if event.kind in ("create", "tags") and OUTS in named:
                state = replace(state, outs=named[OUTS])
        return state

    # -- sending ------------------------------------------------------------------------------------------------------

    def sent(self) -> Sent:
        """How far it was sent; nowhere, if that cannot be read: what is sent again is known by what the run holds."""
        try:
            return Sent(**json.loads((self.folder / SENT).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Sent()

    def note(self, sent: Sent) -> None:
        """Write how far it was sent."""
        write_atomically(self.folder / SENT, json.dumps(asdict(sent)).encode())

    @contextmanager
    def claim(self, timeout: float = 0) -> Iterator[bool]:
        """Whether this process alone may send and remove it now. The system takes the claim from one that was killed."""
        from filelock import FileLock, Timeout

        if not self.path.is_file():
            yield False
            return
        lock = FileLock(self.folder / CLAIM, timeout=timeout)
        try:
            lock.acquire()
        except (Timeout, OSError):
            yield False
            return
        try:
            yield self.path.is_file()  # another may have removed it while this one waited
        finally:
            lock.release()

    def over(self) -> bool:
        """Whether its last event is an end: from the last lines alone, for who looks twice a second."""
        with self.path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            last = file.read().rpartition(b"\n")[0].rpartition(b"\n")[2]
        return b'"kind": "end"' in last

    def done(self) -> bool:
        """Whether all is sent of a run that is over."""
        return self.over() and self.sent().offset >= self.path.stat().st_size

    def clear(self) -> None:
        """Remove it if it is done; not yet, where another process that lives will still look how it came out. With the claim."""
        process = self.state().process
        if self.done() and (process is None or not process.lives() or process == Process.this()):
            self.remove()

    def remove(self) -> None:
        """Call it with the claim."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _write(handle: int, content: bytes) -> None:
    while content:
        content = content[os.write(handle, content) :]


def _unknown(event: Event, told: dict[tuple[Any, ...], Any]) -> Event | None:
    """What of an event `told` does not hold; it holds it then."""
    if event.kind in NAMED:
        # Tags by stage: each stage writes the note anew, and what an earlier one wrote is no news when it is told again.
        place = (event.kind, event.stage if event.kind == "tags" else "", event.step)
        values = {key: value for key, value in event.values.items() if not _same(told.get((*place, key)), value)}
        told.update({(*place, key): value for key, value in values.items()})
        return replace(event, values=values) if values else None
    key = (event.kind, event.stage)
    if event.kind != "artifacts" and told.get(key) == event.values:
        return None
    told[key] = event.values
    return event


def _same(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # NaN


def _keep(source: Path, kept: Path) -> None:
    """A link costs no disk, and outs are replaced, never written to; a copy where the file system has none."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.unlink(missing_ok=True)
    # Tables can be long, and hold no spec: they are cleaned when they are sent.
    clean = without_secrets(source) if source.suffix != ".csv" else None
    if clean is not None:
        kept.write_text(clean, encoding="utf-8")
        return
    try:
        os.link(source, kept)
    except OSError:
        shutil.copyfile(source, kept)


def journals(project: Path) -> list[Journal]:
    """Those of a project, the oldest first."""
    found = []
    for folder in sorted((project / LOG).glob("*")):
        journal = Journal(folder)
        if journal.head() is not None:
            found.append(journal)
        elif folder.is_dir() and time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
            journal.remove()
    return found


def bury(project: Path) -> None:
    """End as KILLED the runs of this host whose process is gone. A live one, and one of another host, is left alone."""
    for journal in journals(project):
        if journal.state().dead:
            with journal.claim(_BURY_SECONDS) as ours:  # its uploader notices within a second
                if ours and (state := journal.state()).dead:
                    journal.mend()
                    journal.append(killed("the process was killed", state.last))


def killed(message: str, time: int = 0) -> list[Event]:
    """How a run ends that was cut short; `time` in ms, if not now."""
    return ended("KILLED", "killed", message, time)


def ended(status: str, how: str, message: str, time: int = 0) -> list[Event]:
    """The last events of a run that the outs tell nothing of."""
    tags = {"deltarule.ended": how, "deltarule.message": message}
    return [Event("tags", "end", tags, time=time), Event("end", "end", {"status": status}, time=time)]


class Syncer:
    """Brings a journal to the disk from a thread beside the training: the disk takes 3 ms and more, an epoch may take less."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync, self._news, self._over = sync, threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="deltarule-log", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something new."""
        self._news.set()

    def close(self) -> None:
        """Return when all that was written is on the disk."""
        self._over = True
        self._news.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over:
            self._news.wait()
            self._news.clear()
            self._sync()
