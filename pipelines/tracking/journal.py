"""The journal of a run: what happened is written here first, and sent to MLflow from here.

A journal has a folder PROJECT/.deltarule/log/ID/ of its own, with events.jsonl, to which a line an event is only ever appended;
files/, links to the outs as they were, so that what waits depends on nothing that others change or remove; and sent.json,
how far it was sent. Two locks, which the system takes from a process that was killed: `writing` is held by the run's process,
`claim` by the one that sends. What is on record whole is removed. A study's journal holds its trials too.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from backends.weights import write_atomically
from pipelines.redact import without_secrets
from pipelines.tracking.events import KIND, LAUNCH, OUTS, Event, killed
from pipelines.tracking.provenance import KEPT
from pipelines.tracking.store import LookupFailed, Refused

LOG = Path(".deltarule/log")
EVENTS, FILES, SENT, CLAIM, WRITING = "events.jsonl", "files", "sent.json", "claim", "writing"
_TAIL_BYTES = 4096
_HOLD_SECONDS = 2  # who looks whether a journal is being written has the lock for a moment
_ABANDONED_SECONDS = 3600  # a folder without a first line
_KILLED_SECONDS = 3  # for the sender of a run that was killed, which notices within a second
# A name that a record or a clone tells leads out of no folder.
_OURS = re.compile(r"[\w-]+")
SETTLE_SECONDS, _LOOK_SECONDS = 60.0, 0.05


@dataclass(frozen=True)
class Sent:
    """How far a journal was sent to one store, and what hindered the last attempt."""

    store: str = ""  # of which store and experiment this is true
    run_id: str | None = None
    offset: int = 0  # bytes of events.jsonl
    events: int = 0
    error: str = ""


@dataclass
class State:
    """What the events of a journal come to."""

    events: int = 0
    last: int = 0  # ms: time of the last one
    host: str | None = None  # where it was continued last; None if written from outs
    status: str | None = None  # how it ended; None while it goes on
    outs: str | None = None  # hash of what train wrote, once it has
    running: bool = False  # it goes on, as far as anyone knows
    dead: bool = False  # its process is gone without a word

    def __str__(self) -> str:
        if self.running:
            return "running here" if self.host == platform.node() else f"running on {self.host}"
        return "killed" if self.dead else (self.status or "unknown").lower()


def new_name() -> str:
    """Of a journal: no two have the same."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"


class Journal:
    """The journal of one run. One process appends at a time, and one sends."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, folder / FILES
        self.path = folder / EVENTS
        # One object a process: a run that a notebook gave up does not keep the next one out.
        self._writing = FileLock(folder / WRITING, is_singleton=True, thread_local=False)
        self._head: dict[str, Any] = {}

    @property
    def id(self) -> str:
        """Its name, which its run in MLflow has as a tag."""
        return self.folder.name

    @property
    def is_study(self) -> bool:
        """Whether it is of a study with its trials."""
        return bool(self.head()["identity"].get(KIND) == "study")

    @property
    def title(self) -> str:
        """What a person calls the run: its folder, or the name of the pipeline's run."""
        head = self.head()
        name = head["name"]
        return f"studies/{name}" if self.is_study else str(head["identity"].get(LAUNCH, name))

    # -- writing --

    @classmethod
    def create(cls, project: Path, events: Sequence[Event], root: Path, hold: bool = False, name: str | None = None) -> Journal:
        """A new one, there whole or not at all; files are below `root`.

        With `hold` this process goes on writing it.
        """
        name = name or new_name()
        if not _OURS.fullmatch(name):
            raise Refused(f"a journal must be called as we call one, such as {new_name()}, got {name!r}; nothing is sent")
        journal = cls(project / LOG / name)
        if not journal.head():  # of a process that was killed while it made it
            journal.remove()
        (project / LOG).parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # for its owner alone
        journal.files.mkdir(parents=True)
        if hold:
            journal.hold()
        journal._write(events, root)
        return journal

    def hold(self) -> None:
        """This process writes it, until `release` or its end. Raises OSError if another one does."""
        self._writing.acquire(timeout=_HOLD_SECONDS)

    def release(self) -> None:
        """This process will not look at it any more: it may be removed."""
        self._writing.release(force=True)

    def go_on(self, begin: Event, seconds: float) -> bool:
        """Continue it in this process. False if it is gone, or another process has it."""
        over = self.over()
        with suppress(OSError):
            self.hold()
            if over:
                self.append([begin])
            with self.claim(seconds) as ours:
                if ours and not over:
                    self.mend()
                    self.append([begin])
                if (ours or over) and self.path.is_file():
                    return True
        self.release()
        return False

    def append(self, events: Iterable[Event]) -> None:
        """Write them, each with its time: in one call, so that two writers do not mix their lines."""
        now = int(time.time() * 1000)
        lines = [json.dumps(asdict(one if one.time else replace(one, time=now))) + "\n" for one in events]
        content = "".join(lines).encode()
        # Opened anew for each: nothing has to be closed when a notebook forgets the run.
        with self.path.open("ab", buffering=len(content) + 2) as file:
            file.write(content)

    def add(self, events: Sequence[Event], root: Path) -> None:
        """Append what is not written yet, and keep the files below `root` that it names."""
        os.stat(self.path)  # removed by someone, it is not begun anew without its head
        known = list(self.read())
        written = {_content(event) for event in known}
        # The same path can hold another file than the one kept: the mark of the stage tells.
        marks = {event.stage: event.values for event in known if event.kind == "mark"}
        whole = {one.stage for one in events if one.kind == "mark" and marks.get(one.stage) == one.values}
        left = [one for one in events if one.stage not in whole]
        always = "artifacts", "model", "end"
        news = [one for one in left if one.stage in marks or one.kind in always or _content(one) not in written]
        if any(event.kind != "end" for event in news):
            self._write(news, root)

    def _write(self, events: Sequence[Event], root: Path) -> None:
        for event in events:
            for below in event.values.values() if event.kind == "artifacts" else ():
                keep_file(root / below, self.files / below)
        self.append(events)
        self.sync()

    def sync(self) -> None:
        """Return when what was written is on the disk."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def mend(self) -> None:
        """Cut off a last line that was not written whole, before anything is appended to it."""
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(self.path, content.rfind(b"\n") + 1)

    # -- reading --

    def read(self) -> Iterator[Event]:
        """Every event that is there whole."""
        return (event for event, _ in self.after(0))

    def after(self, offset: int) -> Iterator[tuple[Event, int]]:
        """(event, where its line ends) from a place in the file on."""
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

    def head(self) -> dict[str, Any]:
        """The values of the creation; empty if that was never seen whole."""
        if not self._head:
            first = next(self.read(), None)
            values = first.values if first is not None and first.kind == "create" else {}
            whole = "name" in values and all(isinstance(values.get(key), dict) for key in ("identity", "tracking"))
            self._head = values if whole else {}
        return self._head

    def state(self) -> State:
        """What it comes to now."""
        state = State()
        for event in self.read():
            state.events += 1
            state.last = event.time
            if event.child:
                continue
            if event.kind == "begin":
                state.host = event.values.get("process", event.values)["host"]  # "process": 0.1.0
                state.status = None
            elif event.kind == "end":
                state.status = event.values["status"]
            elif event.kind in ("create", "tags"):
                named = event.values["identity"] if event.kind == "create" else event.values
                state.outs = named.get(OUTS, state.outs)
        if state.status is None and state.host is not None:
            state.running = state.host != platform.node() or self.is_written()
            state.dead = not state.running
        return state

    def is_written(self) -> bool:
        """Whether the process that writes it is at it, or will yet look how it came out."""
        if self._writing.is_locked:
            return True
        with self._locked(WRITING) as free:
            return self.path.is_file() and not free

    def is_sent(self) -> bool:
        """Whether a process is sending it."""
        with self.claim() as free:
            return self.path.is_file() and not free

    def check(self, names: Iterable[str]) -> None:
        """Raises Refused for a name that leads out of the journal's folder, or a link there."""
        outside = [name for name in names if name.startswith("/") or ".." in PurePosixPath(name).parts]
        links = [path.relative_to(self.files).as_posix() for path in self.files.rglob("*") if path.is_symlink()]
        for name in (*outside, *links):
            raise Refused(
                f"the journal {self.id} names {name!r}, which is not a file of its run; look at {self.folder}, and give it up "
                f"with `deltarule sync --drop {self.id}`"
            )

    # -- sending --

    def sent(self) -> Sent:
        """How far it was sent; nowhere, if that cannot be read."""
        try:
            noted = json.loads((self.folder / SENT).read_text(encoding="utf-8"))
            noted.pop("since", None)  # of earlier versions
            return Sent(**noted)
        except (OSError, ValueError, TypeError, AttributeError):
            return Sent()

    def note(self, sent: Sent) -> None:
        """Write how far it was sent, unless it was moved or removed meanwhile."""
        if self.path.is_file():
            write_atomically(self.folder / SENT, json.dumps(asdict(sent)).encode())

    def claim(self, timeout: float = 0) -> AbstractContextManager[bool]:
        """Whether this process alone may send and remove it now."""
        return self._locked(CLAIM, timeout)

    def claim_of_child(self) -> int:
        """The claim as an open file, for the process that inherits it and waits by `flock`."""
        file = os.open(self.folder / CLAIM, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file

    @contextmanager
    def _locked(self, name: str, timeout: float = 0) -> Iterator[bool]:
        lock = FileLock(self.folder / name, timeout=timeout)
        with suppress(OSError):  # Timeout is one
            if self.path.is_file():  # else its folder would be made anew
                lock.acquire()
        held = lock.is_locked
        try:
            yield held and self.path.is_file()  # else it was removed meanwhile
        finally:
            lock.release()
            if held and not self.path.is_file():  # then the lock's file was made anew, or kept the folder
                self.remove()

    def over(self) -> bool:
        """Whether its last event is the end of the run: from the last line alone."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                last = json.loads(file.read().rpartition(b"\n")[0].rpartition(b"\n")[2])
        except (OSError, ValueError):
            return False
        return isinstance(last, dict) and last.get("kind") == "end" and not last.get("child")

    def done(self) -> bool:
        """Whether all is sent of a run that is over."""
        try:
            return self.over() and self.sent().offset >= self.path.stat().st_size
        except FileNotFoundError:
            return False

    def clear(self) -> None:
        """Remove it if it is done and nobody will look how it came out. Call it with the claim."""
        if self.done() and not self.is_written():
            self.remove()

    def remove(self) -> None:
        """Call it with the claim."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _content(event: Event) -> str:
    return json.dumps([event.kind, event.stage, event.step, event.child, event.values], sort_keys=True)


def keep_file(source: Path, kept: Path, tables: bool = False) -> None:
    """A copy without secrets, else a link: outs are never written to."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.unlink(missing_ok=True)
    # Tables can be long, and hold no spec: they are cleaned when they are sent.
    clean = without_secrets(source) if tables or source.suffix != ".csv" else None
    if clean is not None:
        kept.write_text(clean, encoding="utf-8")
        return
    try:
        os.link(source.resolve(), kept)  # of a file in DVC's cache, not of the link to it
    except OSError:
        shutil.copyfile(source, kept)


# -- the journals of a project --


@dataclass(frozen=True)
class Waiting:
    """A run that is not, or not wholly, on record."""

    log: str  # the folder below .deltarule/log
    run: str  # folder of the launch or of the study, or the name of the pipeline's run
    state: str  # running here, running on HOST, finished, failed, killed
    events: int
    sent: int
    since: int  # ms: when the oldest event that waits was written
    error: str  # of the last attempt to send it

    @classmethod
    def of(cls, journal: Journal) -> Waiting:
        """How a journal stands now."""
        state, sent = journal.state(), journal.sent()
        oldest = next((event.time for event, _ in journal.after(sent.offset)), 0)
        return cls(journal.id, journal.title, str(state), state.events, sent.events, oldest, sent.error)

    @property
    def waiting(self) -> int:
        """Events that are not sent."""
        return self.events - self.sent

    @property
    def is_study(self) -> bool:
        """Whether it is a study with its trials."""
        return self.run.startswith("studies/")

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "waiting": self.waiting}


def journals(project: Path) -> list[Journal]:
    """Those of a project, the oldest first."""
    found = []
    for folder in sorted((project / LOG).glob("*")):
        journal = Journal(folder)
        if journal.head():
            found.append(journal)
        elif folder.is_dir() and time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
            journal.remove()
    return found


def mark_killed(project: Path) -> None:
    """End as KILLED the runs of this host whose process is gone."""
    for journal in journals(project):
        if journal.state().dead:
            with journal.claim(_KILLED_SECONDS) as ours:
                if ours and (state := journal.state()).dead:
                    journal.mend()
                    journal.append(killed("the process was killed", state.last))


def settle(project: Path) -> None:
    """Return when no run that is over is being sent any more; not later than after a minute."""
    ends = time.monotonic() + SETTLE_SECONDS
    for journal in journals(project):
        while journal.over() and not journal.done() and journal.is_sent() and time.monotonic() < ends:
            time.sleep(_LOOK_SECONDS)


def waiting(project: Path) -> list[Waiting]:
    """The runs of a project that go on, or wait; the oldest first."""
    return [Waiting.of(one) for one in journals(project) if not one.done() and one.path.is_file()]


def drop(project: Path, text: str) -> Waiting:
    """Give up the one run of this name, folder or log that waits.

    Raises LookupFailed if there is none, or if it is going on.
    """
    found = [one for one in journals(project) if text in (one.title, one.id, one.head()["name"])]
    if len(found) != 1:
        rows = ", ".join(f"{one.run} ({one.log})" for one in waiting(project)) or "none"
        raise LookupFailed(f"--drop must name one run that waits, got {text!r}, which names {len(found)} of: {rows}")
    [journal] = found
    known = Waiting.of(journal)
    with journal.claim() as ours:
        if not ours or journal.state().running:
            raise LookupFailed(f"{known.run} is going on, and cannot be given up now")
        journal.remove()
        (project / known.run / KEPT / "tags.json").unlink(missing_ok=True)  # nor is it found to be lost
    return known
