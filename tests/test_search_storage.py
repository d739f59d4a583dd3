"""Storages of studies: a journal that survives kill -9, and a real PostgreSQL server; one driver a study at a time."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.search.storage import StorageError, answering, locked, open_storage

optuna = pytest.importorskip("optuna")
ROOT = Path(__file__).parents[1]
PASSWORD = "gr@nite-" + secrets.token_hex(4)


def study_in(storage, name="s"):
    return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)


def add_trials(folder, url=None, count=2):
    study = study_in(open_storage(folder, url))
    for _ in range(count):
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        study.tell(trial, trial.params["x"])
    return study


def values(folder, url=None):
    return [trial.value for trial in optuna.load_study(storage=open_storage(folder, url), study_name="s").trials]


def start(code, *arguments) -> subprocess.Popen[str]:
    """A process of ours that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# -- the journal -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "torn", [b'{"op_code": 4, "wor', b"\0" * 40, b'{"op_code":4,"wor{"op_code":5,"worker_id":"w"}\n', b"{", b"7\n"]
)
def test_a_torn_last_line_is_cut_off_and_the_study_goes_on(tmp_path, torn):
    add_trials(tmp_path, count=3)
    journal = tmp_path / "optuna.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + torn)
    assert len(values(tmp_path)) == 3 and journal.read_bytes() == whole
    add_trials(tmp_path, count=2)
    assert len(values(tmp_path)) == 5


def test_optuna_alone_cannot_read_what_is_mended_here(tmp_path):
    add_trials(tmp_path)
    journal = tmp_path / "optuna.log"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 4, "wor')
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    with pytest.raises((ValueError, AssertionError)):
        study_in(optuna.storages.JournalStorage(backend), "another")


def test_a_torn_first_line_leaves_an_empty_journal(tmp_path):
    (tmp_path / "optuna.log").write_bytes(b'{"op_code": 0, "stu')
    assert optuna.get_all_study_names(open_storage(tmp_path, None)) == []


def test_a_line_that_is_no_record_in_the_middle_is_told_and_left(tmp_path):
    add_trials(tmp_path)
    journal = tmp_path / "optuna.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = b"nonsense\n"
    journal.write_bytes(b"".join(lines))
    with pytest.raises(StorageError, match=r"optuna\.log must be an Optuna journal, but line 3 is not a record") as raised:
        open_storage(tmp_path, None)
    assert journal.read_bytes() == b"".join(lines) and raised.value.exit_code == 2


def test_a_lock_left_behind_by_a_killed_writer_holds_nobody_up(tmp_path):
    add_trials(tmp_path)
    (tmp_path / "optuna.log.lock").symlink_to(tmp_path / "optuna.log")
    began = time.monotonic()
    add_trials(tmp_path)
    assert len(values(tmp_path)) == 4
    assert time.monotonic() - began < 25, "Optuna itself waits 30 s"


def test_a_line_that_another_process_is_writing_is_not_cut_off(tmp_path):
    from optuna.storages.journal import JournalFileSymlinkLock

    add_trials(tmp_path)
    journal = tmp_path / "optuna.log"
    line = journal.read_bytes().splitlines(keepends=True)[-1]
    before, lock = journal.read_bytes(), JournalFileSymlinkLock(str(journal))
    lock.acquire()
    journal.write_bytes(before + line[:20])
    with ThreadPoolExecutor(1) as thread:
        opened = thread.submit(open_storage, tmp_path, None)
        time.sleep(0.3)
        with journal.open("ab") as writer:
            writer.write(line[20:])
        lock.release()
        opened.result(timeout=30)
    assert journal.read_bytes() == before + line


WRITE_ON = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_search_storage import add_trials
print("ready", flush=True)
add_trials(Path(sys.argv[1]), count=10**6)
"""


def test_a_journal_is_opened_while_another_process_writes_and_loses_nothing_of_it(tmp_path):
    writer = start(WRITE_ON, tmp_path)
    assert writer.stdout.readline() == "ready\n"
    try:
        while not (optuna.get_all_study_names(open_storage(tmp_path, None)) and values(tmp_path)):
            time.sleep(0.01)
        found = [len(values(tmp_path)) for _ in range(12)]
    finally:
        writer.kill()
    _, said = writer.communicate()
    assert writer.returncode == -signal.SIGKILL, said
    assert found == sorted(found) and found[-1] > 0
    trials = study_in(open_storage(tmp_path, None)).trials
    assert [trial.number for trial in trials] == list(range(len(trials))) and len(trials) >= found[-1]
    assert all(trial.state.is_finished() for trial in trials[:-1])


# -- one driver a study ------------------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from pipelines.search.storage import locked
with locked(Path(sys.argv[1]), sys.argv[2] or None, sys.argv[3]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_driver_is_told_and_a_killed_one_holds_nothing(tmp_path):
    first = start(HOLD, tmp_path, "", "digits")
    assert first.stdout.readline() == "held\n"
    with (
        pytest.raises(StorageError, match="study 'digits' is being run by another process") as raised,
        locked(tmp_path, None, "digits"),
    ):
        pass
    assert raised.value.exit_code == 2
    first.kill()
    first.communicate()
    for _ in range(2):
        with locked(tmp_path, None, "digits"):
            pass


# -- SQLite ------------------------------------------------------------------------------------------------------------------


def test_an_sqlite_database_starts_at_the_project_and_belongs_to_one_driver_whatever_the_folder(tmp_path):
    folder, url = tmp_path / "studies/s", "sqlite:///all.db"
    told = [trial.value for trial in add_trials(folder, url, count=3).trials]
    assert values(folder, url) == values(tmp_path / "elsewhere/there", f"sqlite:///{tmp_path}/all.db") == told
    with locked(folder, url, "s"):
        busy = pytest.raises(StorageError, match="study 's' is being run by another process")
        with busy, locked(tmp_path / "studies/t", url, "s"):
            pass
        with locked(tmp_path / "studies/t", url, "t"):
            pass


# -- a folder that is read only ------------------------------------------------------------------------------------------------

READ = """
import os, sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_search_storage import optuna, values
optuna.storages.RDBStorage("sqlite://").engine.dispose()  # all is imported: nobody may not read every Python
if os.getuid() == 0:
    os.setuid(65534)
print(values(Path(sys.argv[1]), sys.argv[2] or None))
"""


@pytest.mark.parametrize(("url", "torn"), [(None, b""), (None, b'{"op_code": 4, "wor'), ("sqlite:///all.db", b"")])
def test_a_study_is_read_in_a_folder_that_may_not_be_written_to(url, torn):
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # not below tmp_path, which is closed to other users
        folder = Path(place, "studies/s")
        told = [trial.value for trial in add_trials(folder, url).trials]
        if torn:
            (folder / "optuna.log").write_bytes((folder / "optuna.log").read_bytes() + torn)
        for path in (Path(place), *Path(place).rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        process = start(READ, folder, url or "")
        said, error = process.communicate()
        assert said == f"{told}\n", error
        for path in (Path(place), *Path(place).rglob("*")):
            path.chmod(0o755)


# -- PostgreSQL --------------------------------------------------------------------------------------------------------------


def programs() -> Path | None:
    """The folder of initdb and postgres; Debian keeps them off PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "postgres").exists()), None)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a fresh database server of our own. It refuses to run as root; Debian's package makes the user postgres."""
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    if (bin := programs()) is None:
        pytest.skip("no PostgreSQL server is installed")
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="deltarule-postgres-"))  # not below tmp_path, which is closed to other users
    (folder / "password").write_text(PASSWORD)
    if user:
        shutil.chown(folder, "postgres"), shutil.chown(folder / "password", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = [bin / "initdb", "-D", folder / "data", "-U", "deltarule", "--auth=scram-sha-256", f"--pwfile={folder}/password", "-N"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder, env={"LC_ALL": "C.UTF-8"}, **user)
    options = ["listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", "fsync=off", "max_connections=50"]
    command = [bin / "postgres", "-D", folder / "data", *[part for option in options for part in ("-c", option)]]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={"LC_ALL": "C.UTF-8"}, **user)
    try:
        yield f"postgresql://deltarule:{PASSWORD.replace('@', '%40')}@127.0.0.1:{port}/postgres"
    finally:
        running.send_signal(signal.SIGINT)  # end sessions, then stop
        running.wait(30)
        shutil.rmtree(folder)


def query(server, text):
    import psycopg

    end = time.monotonic() + 30
    while True:
        try:
            with psycopg.connect(server, autocommit=True, connect_timeout=5) as connection:
                found = connection.execute(text)
                return found.fetchall() if found.description else []
        except psycopg.OperationalError:  # it is starting
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.fixture
def database(server) -> str:
    """URL of a fresh database."""
    name = f"d{secrets.token_hex(4)}"
    query(server, f"CREATE DATABASE {name}")
    return server.replace("postgresql://", "postgresql+psycopg://").replace("/postgres", f"/{name}")


def test_the_password_may_stand_in_the_environment(tmp_path, database, monkeypatch):
    """As the error of a spec that holds it advises."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    user, _, host = database.partition("@")
    assert len(add_trials(tmp_path, f"{user.rpartition(':')[0]}@{host}", count=2).trials) == 2


def test_a_study_in_a_database_is_found_again(tmp_path, database):
    told = [trial.value for trial in add_trials(tmp_path, database, count=3).trials]
    assert values(tmp_path / "elsewhere", database) == told
    assert values(tmp_path, database.replace("postgresql+psycopg:", "postgresql:")) == told
    assert not list(tmp_path.iterdir())


OPEN = """
import sys
from pathlib import Path
from pipelines.search.storage import open_storage
import optuna, psycopg
print("ready", flush=True)
sys.stdin.readline()
optuna.create_study(storage=open_storage(Path("."), sys.argv[1]), study_name="s", load_if_exists=True)
"""


def test_several_processes_open_a_fresh_database_at_once(database):
    processes = [start(OPEN, database) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said


def test_a_driver_on_another_machine_is_told_of_and_frees_its_study_when_it_is_killed(tmp_path, database):
    first = start(HOLD, tmp_path / "there", database, "digits")
    assert first.stdout.readline() == "held\n"
    busy = pytest.raises(StorageError, match="study 'digits' is being run by another process on the database")
    with busy as raised, locked(tmp_path / "here", database, "digits"):
        pass
    assert "gr@nite" not in str(raised.value) and "gr%40nite" not in str(raised.value)
    with locked(tmp_path / "here", database, "another"):
        pass
    first.kill()
    first.communicate()
    end = time.monotonic() + 20
    while True:
        try:
            with locked(tmp_path / "here", database, "digits"):
                return
        except StorageError:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_the_lock_of_a_study_ends_with_its_block(tmp_path, database):
    for folder in ("a", "b"):
        with locked(tmp_path / folder, database, "digits"):
            pass


def test_a_connection_that_the_server_closed_is_opened_again(tmp_path, server, database):
    study = add_trials(tmp_path, database)
    name = database.rpartition("/")[2]
    query(server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    study.tell(study.ask(), 1.0)
    assert len(values(tmp_path, database)) == 3


# -- what cannot be opened -----------------------------------------------------------------------------------------------------


def refusal(url, folder=Path("unused")):
    with pytest.raises(StorageError) as raised:
        open_storage(folder, url)
    assert raised.value.exit_code == 2
    assert not any(secret in str(raised.value) for secret in ("gr@nite", "gr%40nite"))
    return str(raised.value)


def test_a_wrong_password_is_told_without_it(server):
    assert "password authentication failed" in refusal(server.replace("gr%40nite", "wr%40ng-gr%40nite"))


def test_a_missing_database_is_told(server):
    assert 'database "nowhere" does not exist' in refusal(server.replace("/postgres", "/nowhere"))


def test_a_database_that_fails_later_is_told_without_its_password(server, tmp_path):
    from sqlalchemy import create_engine, text

    engine = create_engine(server.replace("postgresql:", "postgresql+psycopg:"))
    failed = pytest.raises(StorageError, match=r"the database .*nonsense.*see that it answers")
    with failed as raised, answering(server), engine.connect() as connection:
        connection.execute(text(f"SELECT nonsense -- {PASSWORD}"))
    engine.dispose()
    assert PASSWORD not in str(raised.value)


def test_a_server_that_is_not_there_is_told_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        told = refusal(f"postgresql+psycopg://me:gr%40nite@127.0.0.1:{taken.getsockname()[1]}/db")
    assert "refused" in told and "***@127.0.0.1" in told


def test_a_server_that_does_not_answer_is_told_soon(monkeypatch):
    monkeypatch.setattr("pipelines.search.storage.CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert "timeout" in refusal(f"postgresql://me:gr%40nite@127.0.0.1:{mute.getsockname()[1]}/db")


@pytest.mark.parametrize("url", ["mysql://me:gr@nite@host/db", "sqlite://", "sqlite:///:memory:", "no url"])
def test_storages_where_no_lock_keeps_two_drivers_apart_are_refused(url):
    assert "search.storage must be null, sqlite:///FILE or postgresql+psycopg://" in refusal(url)


@pytest.mark.parametrize(("driver", "package"), [("psycopg", "deltarule[postgres]"), ("pg8000", "pg8000")])
def test_without_the_driver_the_error_says_what_to_install(monkeypatch, driver, package):
    monkeypatch.setitem(sys.modules, driver, None)
    assert f"pip install '{package}'" in refusal(f"postgresql+{driver}://me:gr%40nite@host/db")
