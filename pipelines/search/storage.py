"""Where a study is recorded: a file in the study's folder, or a database by URL; and who may write to it.

One driver a study: driver.lock beside the file says so, a lock beside an SQLite database, and in PostgreSQL an advisory lock, to
other machines too. All are freed by the kernel or the server when their holder dies, and looked at before each write.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pipelines.redact import HIDDEN, redact

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy import URL

EMBEDDED = "optuna.log"
CONNECT_SECONDS = 5  # to an address; a name may have two
MAKING_SECONDS = 60  # until those who open a fresh database first have made its tables: 1 to 3 s each
STALE_SECONDS = 5  # writers hold the journal's lock for milliseconds; Optuna would wait 30 s for one that was killed
# A session whose machine lost its power holds its locks until the server asks after it: by default, after two hours.
SESSION = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3", "idle_session_timeout": "0"}


class StorageError(RuntimeError):
    """The storage of a study could not be used: not reachable, not readable, or in use."""

    exit_code = 2


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """The storage of a study: by `url`, or the file in `folder` (made if missing). Any number of processes may open one.

    The path of an SQLite database starts at the project, two folders above. Raises StorageError, soon, and without the password
    of the URL.
    """
    return _open_file(Path(folder) / EMBEDDED) if url is None else _open_database(url, _parsed(folder, url))


@contextmanager
def locked(folder: Path, url: str | None, study: str) -> Iterator[Callable[[], None]]:
    """One driver a study at a time. Raises StorageError at once where another one is at work.

    Yields a check to make before each write: it raises StorageError once another driver may be at work. So does all in here
    for a database that fails, and a trial that another driver ended.
    """
    from optuna.exceptions import UpdateFinishedTrialError

    folder.mkdir(parents=True, exist_ok=True)
    locks, trials, where = [folder / "driver.lock"], folder / EMBEDDED, "on this machine"
    parsed = None if url is None else _parsed(folder, url)
    if url is not None:
        where = f"on the database {redact(url)}"
    if parsed is not None and parsed.get_backend_name() == "sqlite":
        trials = Path(parsed.database or "")
        locks.append(Path(f"{trials}.{study}.lock"))
    busy = StorageError(
        f"study {study!r} is being run by another process {where}; wait for it or stop it, or name another study with --name"
    )
    known: dict[Path, tuple[int, int] | None] = {}
    holds: Callable[[], bool] | None = None

    def check() -> None:
        for file in (*locks, trials):
            known[file] = known.get(file) or _inode(file)
            if known[file] != _inode(file):
                raise StorageError(
                    f"study {study!r} stops, since {file} was removed or replaced, and another process may run it; see that none "
                    "does, restore the file if it held trials, then run it again"
                )
        if holds is not None and not holds():
            raise busy

    with ExitStack() as stack:
        try:
            for file in locks:
                stack.enter_context(FileLock(file, blocking=False))
        except Timeout:
            raise busy from None
        if url is not None:
            stack.enter_context(answering(url))
        if parsed is not None and parsed.get_backend_name() == "postgresql":
            holds = stack.enter_context(_advisory_lock(parsed, f"study {study}"))
        check()
        try:
            yield check
        except UpdateFinishedTrialError as error:
            raise StorageError(
                f"study {study!r} stops, since another process wrote to it ({error}); see that none does, then run it again"
            ) from None


def _inode(path: Path) -> tuple[int, int] | None:
    return (found.st_dev, found.st_ino) if path.exists() and (found := path.stat()) else None


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Turn every way in which a database fails into one StorageError, without its password."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        first: BaseException = error  # the first cause says most: "Connection refused"
        while inner := first.__cause__ or first.__context__:
            first = inner
        reason, password = redact(" ".join(str(first).split())) or type(first).__name__, str(make_url(url).password or "")
        reason = (reason.replace(password, HIDDEN) if password else reason)[:300]
        # Not chained: the original message may hold the password.
        raise StorageError(
            f"the database {redact(url)} failed ({reason}); see that it answers, then give the command again"
        ) from None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of this block, which must be short.

    Optuna's lock of a journal answers Ctrl-C between two of its lines with a FileNotFoundError, and its replay loses a record.
    """
    if threading.current_thread() is not threading.main_thread():  # no signal interrupts another thread
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


# -- a file --


def _open_file(path: Path) -> BaseStorage:
    """An Optuna journal, mended. Its lock stays the one that other programs (optuna-dashboard) wait for."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileSymlinkLock(str(path), grace_period=STALE_SECONDS)
    backend = JournalFileBackend(str(path), lock)
    if _torn_bytes(path):
        # Optuna would append to a torn line, and read the file no more (optuna#5138). Who only reads needs no repair.
        with suppress(OSError), path.open("r+b"):
            lock.acquire()  # a living writer's line is not cut
            try:
                os.truncate(path, path.stat().st_size - _torn_bytes(path))
            finally:
                lock.release()
    try:
        return JournalStorage(backend)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        lines = enumerate(path.read_bytes().splitlines(keepends=True), 1)
        bad = next((f"line {number} is not a record" for number, line in lines if not _is_record(line)), error)
        raise StorageError(f"{path} must be an Optuna journal, but {bad}; restore it, or remove it") from None


def _torn_bytes(path: Path) -> int:
    """The length of a last line that a killed writer left behind and that is no whole record."""
    whole = path.read_bytes()
    last = whole[whole.rfind(b"\n", 0, -1) + 1 :]
    return 0 if not last or _is_record(last) else len(last)


def _is_record(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


# -- databases --


def _open_database(url: str, parsed: URL) -> BaseStorage:
    from optuna.storages import RDBStorage

    # A driver may train for hours between two looks at the database, which may have closed the connection meanwhile.
    settings = {"pool_pre_ping": True, "hide_parameters": True, "connect_args": _connect_args(parsed)}
    with answering(url), ExitStack() as making:  # of several who find no tables all would make them, and all but one fail
        if parsed.get_backend_name() == "sqlite":
            with suppress(OSError):  # of a folder that is read only the tables are there
                making.enter_context(FileLock(f"{parsed.database}.lock", timeout=MAKING_SECONDS))
        else:
            making.enter_context(_advisory_lock(parsed, "tables", MAKING_SECONDS))()
        try:
            storage = RDBStorage(parsed.render_as_string(hide_password=False), settings)
        except RuntimeError as error:  # tables of another version of Optuna
            raise StorageError(f"the database {redact(url)} cannot be used: {redact(str(error))}") from None
    weakref.finalize(storage, storage.engine.dispose)  # Optuna leaves its connections to the collector, which complains
    return storage


def _parsed(folder: Path, url: str) -> URL:
    """A URL of which it is known how one driver keeps others away, and whose driver is installed."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = make_url("none://")
    file = parsed.database or ""
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    elif parsed.get_backend_name() == "sqlite" and file and not file.startswith((":", "file:")):
        parsed = parsed.set(database=str(Path(folder).resolve().parents[1] / file))
    elif parsed.get_backend_name() != "postgresql":
        raise StorageError(
            "search.storage must be null, sqlite:///FILE or postgresql+psycopg://USER@HOST:PORT/NAME, where two drivers "
            f"are kept from running one study, got {redact(url)!r}"
        )
    try:
        parsed.get_dialect().import_dbapi()
    except (ImportError, ArgumentError):
        driver = parsed.get_driver_name()
        raise StorageError(
            f"search.storage {redact(url)!r} needs {driver}, which is not installed; install it with: pip install "
            f"{('deltarule[postgres]' if driver == 'psycopg' else driver)!r}, or set search.storage: null"
        ) from None
    return parsed


def _connect_args(url: URL) -> dict[str, Any]:
    """Of PostgreSQL's own library, what the URL does not give itself; milliseconds for tcp_user_timeout."""
    defaults = {"connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": 20_000, "application_name": "deltarule"}
    ours = url.get_driver_name().startswith("psycopg")
    return {name: value for name, value in defaults.items() if ours and name not in url.query}


@contextmanager
def _advisory_lock(url: URL, what: str, seconds: int = 0) -> Iterator[Callable[[], bool]]:
    """Yields whether this process has it, after so long: it takes it anew where its session ended and nobody else took it.

    A connection of its own holds it, and loses it when its machine is gone.
    """
    from sqlalchemy import NullPool, create_engine, text
    from sqlalchemy.exc import DBAPIError

    settings = {"isolation_level": "AUTOCOMMIT", "hide_parameters": True, "connect_args": _connect_args(url)}
    engine = create_engine(url, poolclass=NullPool, **settings)
    key = int.from_bytes(hashlib.sha256(f"deltarule {what}".encode()).digest()[:8], "big", signed=True)  # a bigint
    setting = text("SELECT set_config(name, :value, false) FROM pg_settings WHERE name = :name")
    lock = text(f"SELECT {'pg_advisory_lock' if seconds else 'pg_try_advisory_lock'}(:key)")
    with engine.connect() as connection:

        def begin() -> None:
            for name, value in {**SESSION, "lock_timeout": f"{seconds}s"}.items():
                connection.execute(setting, {"name": name, "value": value})

        def holds() -> bool:
            try:
                return connection.execute(lock, {"key": key}).scalar() is not False  # who has it gets it again
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            connection.rollback()  # and SQLAlchemy connects anew
            begin()
            return holds()

        begin()
        yield holds
