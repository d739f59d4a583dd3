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
from pipelines.tracking.events import OUTS, Event
from pipelines.tracking.store import Refused

LOG = Path(".deltarule/log")
EVENTS, FILES, SENT, CLAIM, WRITING = "events.jsonl", "files", "sent.json", "claim", "writing"
_TAIL_BYTES = 4096
_HOLD_SECONDS = 2  # who looks whether a journal is being written has the lock for a moment


@dataclass(frozen=True)
class Sent:
    """How far a journal was sent to one store, and what hindered the last attempt."""

    store: str = ""  # of which store and experiment this is true
    run_id: str | None = None
    offset: int = 0  # bytes of events.jsonl
    events: int = 0
    error: str = ""


@dataclass(frozen=True)
class State:
    """What the events of a journal come to."""

    events: int = 0
    last: int = 0  # ms: time of the last one
    host: str | None = None  # where it was continued last; None if written from outs
    status: str | None = None  # how it ended; None while it goes on
    outs: str | None = None  # hash of what train wrote, once it has
    alive: bool = False  # whether its process is still at it, as far as anyone knows

    @property
    def here(self) -> bool:
        """Whether it is, or was, carried out on this host."""
        return self.host == platform.node()

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self.status is None and self.host is not None and self.alive

    @property
    def dead(self) -> bool:
        """Whether its process is gone without a word."""
        return self.status is None and self.host is not None and not self.alive


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

    # -- writing --

    @classmethod
    def create(cls, project: Path, events: Sequence[Event], root: Path, hold: bool = False, name: str | None = None) -> Journal:
        """A new one, there whole or not at all; files are below `root`.

        With `hold` this process goes on writing it.
        """
        journal = cls(project / LOG / (name or new_name()))
        if not journal.head():  # of a process that was killed while it made it
            journal.remove()
        (project / LOG).parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # for its owner alone
        journal.files.mkdir(parents=True)
        if hold:
            journal.hold()
        journal._keep(events, root)
        journal.append(events)
        journal.sync()
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
        lines = [json.dumps(asdict(event if event.time else replace(event, time=now))) + "\n" for event in events]
        # Opened anew for each: nothing has to be closed when a notebook forgets the run.
        with self.path.open("ab", buffering=0) as file:
            content = memoryview("".join(lines).encode())
            while content:
                content = content[file.write(content) :]

    def add(self, events: Sequence[Event], root: Path) -> None:
        """Append what is not written yet, and keep the files below `root` that it names."""
        os.stat(self.path)  # removed by someone, it is not begun anew without its head
        known = list(self.read())
        written = {_content(event) for event in known}
        # The same path can hold another file than the one kept: the mark of the stage tells.
        marks = {event.stage: event.values for event in known if event.kind == "mark"}
        whole = {event.stage for event in events if event.kind == "mark" and marks.get(event.stage) == event.values}
        left = [event for event in events if event.stage not in whole]
        always = "artifacts", "model", "end"
        news = [one for one in left if one.stage in marks or one.kind in always or _content(one) not in written]
        if any(event.kind != "end" for event in news):
            self._keep(news, root)
            self.append(news)
            self.sync()

    def _keep(self, events: Sequence[Event], root: Path) -> None:
        for event in events:
            if event.kind == "artifacts":
                for below in event.values.values():
                    keep_file(root / below, self.files / below)

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
            state = replace(state, events=state.events + 1, last=event.time)
            if event.child:
                continue
            if event.kind == "begin":
                state = replace(state, host=event.values.get("process", event.values)["host"], status=None)  # "process": 0.1.0
            elif event.kind == "end":
                state = replace(state, status=event.values["status"])
            named = event.values.get("identity", {}) if event.kind == "create" else event.values
            if event.kind in ("create", "tags") and OUTS in named:
                state = replace(state, outs=named[OUTS])
        return replace(state, alive=not state.here or self.is_written())

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
        outside = [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
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
        try:
            if self.path.is_file():  # else its folder would be made anew
                lock.acquire()
        except OSError:  # Timeout is one
            pass
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
