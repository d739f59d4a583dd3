"""Where a study is recorded: a file in the study's folder, or a PostgreSQL database by URL; and who may write to it.

Beside the file lies driver.lock; in a database an advisory lock says the same to other machines. Both are freed by the kernel or
the server when their holder dies.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pipelines.redact import HIDDEN, redact

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
    from sqlalchemy import URL, Connection

EMBEDDED = "optuna.log"
CONNECT_SECONDS = 5  # to an address; a name may have two
MAKING_SECONDS = 60  # until those who open a fresh database first have made its tables: 1 to 3 s each
SYNC_SECONDS = 1  # between two fsyncs of the journal
STALE_SECONDS = 3  # writers hold the journal's lock for milliseconds
# A session whose machine lost its power holds its locks until the server asks after it: by default, after two hours.
SESSION = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3", "idle_session_timeout": "0"}


class StorageError(RuntimeError):
    """The storage of a study could not be used: not reachable, not readable, or in use."""

    exit_code = 2


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """The storage of a study: by `url`, or the file in `folder` (made if missing). Any number of processes may open one.

    Raises StorageError, soon, and without the password of the URL.
    """
    return _open_file(Path(folder) / EMBEDDED) if url is None else _open_database(url)


@contextmanager
def locked(folder: Path, url: str | None, study: str) -> Iterator[None]:
    """One driver a study at a time. Raises StorageError at once where another one is at work.

    In here, a database that fails raises StorageError too, wherever it is asked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours = FileLock(folder / "driver.lock", blocking=False)
    try:
        ours.acquire()
    except Timeout:
        raise StorageError(_busy(study, "on this machine")) from None
    try:
        with _locked_in_database(url, study) if url else nullcontext():
            yield
    finally:
        ours.release()


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Turn every way in which a database fails into one StorageError, without its password."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        # Not chained: the original message may hold the password.
        raise StorageError(
            f"the database {shown(url)} failed ({_reason(error, url)}); see that it answers, then give the command again"
        ) from None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of this block, which must be short; a second one does not wait.

    Optuna's lock of a journal answers Ctrl-C between two of its lines with a FileNotFoundError, and its replay loses a record.
    """
    came: list[int] = []

    def wait(number: int, frame: Any) -> None:
        if came:
            before[number](number, frame)
        came.append(number)

    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before: dict[int, Any] = {number: handler for number, handler in kept.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        before = {}  # no signal interrupts another thread
    try:
        for number in before:
            signal.signal(number, wait)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            before[came[0]](came[0], None)


def shown(url: str) -> str:
    """A URL for people: no user, no password."""
    return redact(url)


def _busy(study: str, where: str) -> str:
    return f"study {study!r} is being run by another process {where}; wait for it or stop it, or name another study with --name"


# -- a file ----------------------------------------------------------------------------------------------------------------


def _open_file(path: Path) -> BaseStorage:
    """An Optuna journal, mended. Its lock stays the one that other programs (optuna-dashboard) wait for."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileSymlinkLock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileSymlinkLock(str(path))
    backend = _journal(path, lock)
    _repair(path, lock)
    try:
        return JournalStorage(backend)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise StorageError(
            f"{path} must be an Optuna journal, but {_bad_line(path) or error}; restore it, or remove it"
        ) from None


def _journal(path: Path, lock: JournalFileSymlinkLock) -> JournalFileBackend:
    """Optuna's, but for its fsync after each record: 4 to 5 ms, some four times a trial, for what is otherwise 0.4 ms.

    What a killed process wrote is in the file all the same. A machine that loses its power loses a second of records, and a
    study that is continued makes them again.
    """
    from optuna.storages.journal import JournalFileBackend

    class Journal(JournalFileBackend):
        synced = 0.0

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
            with _held(lock), path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                if time.monotonic() - self.synced > SYNC_SECONDS:
                    os.fsync(file.fileno())
                    self.synced = time.monotonic()

    return Journal(str(path), lock)


@contextmanager
def _held(lock: JournalFileSymlinkLock) -> Iterator[None]:
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _repair(path: Path, lock: JournalFileSymlinkLock) -> None:
    """Cut off what a killed writer left behind: its lock, and a last line that is no whole record (optuna#5138).

    Optuna would append to the torn line, and no longer read the file. Under the writers' lock, so a living one is not cut.
    """
    _break_stale_lock(path.with_name(path.name + ".lock"))
    with _held(lock), path.open("r+b") as file:
        *_, last = [b"", *file.read().splitlines(keepends=True)]
        if last and not _is_record(last):
            file.truncate(file.tell() - len(last))


def _is_record(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _bad_line(path: Path) -> str:
    lines = path.read_bytes().splitlines(keepends=True)
    return next((f"line {number} is not a record" for number, line in enumerate(lines, 1) if not _is_record(line)), "")


def _break_stale_lock(lock: Path) -> None:
    """Optuna would wait 30 s for a lock whose holder was killed."""
    before, end = _made(lock), time.monotonic() + STALE_SECONDS
    while before is not None and _made(lock) == before:
        if time.monotonic() > end:
            lock.unlink(missing_ok=True)
        time.sleep(0.01)


def _made(lock: Path) -> int | None:
    with suppress(FileNotFoundError):
        return lock.lstat().st_mtime_ns
    return None


# -- PostgreSQL ------------------------------------------------------------------------------------------------------------


def _open_database(url: str) -> BaseStorage:
    from optuna.storages import RDBStorage

    parsed = _parsed(url)
    # A driver may train for hours between two looks at the database, which may have closed the connection meanwhile.
    settings = {"pool_pre_ping": True, "hide_parameters": True, "connect_args": _own(parsed)}
    with answering(url), _session(parsed) as session, _one_at_a_time(session):
        try:
            storage = RDBStorage(parsed.render_as_string(hide_password=False), settings)
        except RuntimeError as error:  # tables of another version of Optuna
            raise StorageError(f"the database {shown(url)} cannot be used: {redact(str(error))}") from None
    weakref.finalize(storage, storage.engine.dispose)  # Optuna leaves its connections to the collector, which complains
    return storage


def _parsed(url: str) -> URL:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise StorageError(
            f"search.storage must be null or postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME, got {shown(url)!r}"
        )
    if importlib.util.find_spec("psycopg") is None:
        raise StorageError(
            f"search.storage {shown(url)!r} needs psycopg, which is not installed; install it with: pip install "
            "'deltarule[postgres]', or set search.storage: null"
        )
    return parsed.set(drivername="postgresql+psycopg")


def _own(url: URL) -> dict[str, Any]:
    """Arguments of a connection that the URL does not give itself; milliseconds for tcp_user_timeout."""
    defaults = {"connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": 20_000, "application_name": "deltarule"}
    return {name: value for name, value in defaults.items() if name not in url.query}


@contextmanager
def _session(url: URL) -> Iterator[Connection]:
    """A connection of its own, whose locks the server frees when it ends, or when its machine no longer answers."""
    from sqlalchemy import NullPool, create_engine, text

    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True, connect_args=_own(url))
    setting = text("SELECT set_config(name, :value, false) FROM pg_settings WHERE name = :name")
    with engine.connect() as connection:
        for name, value in SESSION.items():
            connection.execute(setting, {"name": name, "value": value})
        yield connection


@contextmanager
def _locked_in_database(url: str, study: str) -> Iterator[None]:
    from sqlalchemy import text

    with answering(url), _session(_parsed(url)) as session:
        query = text("SELECT pg_try_advisory_lock(:key)")
        if not session.execute(query, {"key": _key(f"study {study}")}).scalar():
            raise StorageError(_busy(study, f"on the database {shown(url)}"))
        yield


@contextmanager
def _one_at_a_time(session: Connection) -> Iterator[None]:
    """Of several who find no tables all would make them, and all but one fail."""
    from sqlalchemy import text

    session.execute(text(f"SET lock_timeout = '{MAKING_SECONDS}s'"))
    session.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _key("tables")})
    yield  # the lock ends with the session


def _key(what: str) -> int:
    """A name as the number that PostgreSQL wants, of 64 bits with a sign."""
    return int.from_bytes(hashlib.sha256(f"deltarule {what}".encode()).digest()[:8], "big", signed=True)


def _reason(error: BaseException, url: str) -> str:
    """The first cause says most: "Connection refused"."""
    from sqlalchemy import make_url

    while inner := error.__cause__ or error.__context__:
        error = inner
    text = redact(" ".join(str(error).split())) or type(error).__name__
    with suppress(Exception):
        password = str(make_url(url).password or "")
        text = text.replace(password, HIDDEN) if password else text
    return text[:300]
