"""One study in processes, in a database and after what kills it: the same trials, values and winner; errors of one line."""

from __future__ import annotations

import itertools
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import environment
from test_search import spec, told
from test_search_storage import PASSWORD, database, query, server

from backends.supervisor import Checkpoint
from pipelines.search import driver, networks, search
from pipelines.search.storage import StorageError, locked
from pipelines.spec import Experiment, dump

pytest.importorskip("optuna")
psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.slow
__all__ = ["database", "server"]  # fixtures
SHORT = {"search__trials": 8, "search__rung": 2, "search__pruner": "median"}
LONGER = {**SHORT, "search__trials": 16, "train__epochs": 60, "search__rung": 20, "search__width": 2}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.search.study.draw_study", lambda *_: None)  # takes longer than these studies
    return tmp_path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Callable[[Experiment], list[object]]:
    """What a study tells in this process, undisturbed; found once."""
    known: dict[str, list[object]] = {}

    def of(experiment: Experiment) -> list[object]:
        experiment = experiment.override({"search.engine": "here", "search.workers": "auto", "search.storage": None})
        if (key := dump(experiment)) not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            known[key] = outcome(search(experiment, project=folder))
        return known[key]

    return of


def outcome(study) -> list[object]:
    return [study.best, *told(study)]


def appear(look, seconds=60):
    """What `look` finds, once it finds something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.01)
    return found


# -- every engine and storage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", "lightning"])
@pytest.mark.parametrize("workers", [1, 2])
def test_processes_give_the_study_of_this_process(undisturbed, backend, workers):
    experiment = spec(train__backend=backend, **SHORT)
    there = experiment.override({"search.engine": "processes", "search.workers": workers})
    # A relative project: where a worker stands must not matter.
    assert outcome(search(there, project=Path("."))) == undisturbed(experiment)


def test_the_rows_of_a_job_are_named_by_an_absolute_path(monkeypatch):
    jobs = []
    monkeypatch.setattr(driver, "advance", lambda job: jobs.append(job) or networks.advance(job))
    search(spec(search__trials=2), project=Path("."))
    assert jobs and all(Path(job.data).is_absolute() for job in jobs)


@pytest.fixture
def known_database(database, monkeypatch) -> str:
    """The URL of a fresh database, whose password the environment holds."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    user, _, host = database.partition("@")
    return f"{user.rpartition(':')[0]}@{host}"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_gives_the_study_of_a_file(undisturbed, request, kind):
    url = "sqlite:///all.db" if kind == "sqlite" else request.getfixturevalue("known_database")
    assert outcome(search(spec(**SHORT).override("search.storage", url))) == undisturbed(spec(**SHORT))


@pytest.mark.parametrize("width, said", [(6, ["12 networks at a time in stacks of 6 keep 2 of 3 workers busy"]), (4, [])])
def test_workers_that_have_nothing_to_do_are_told_with_what_would_keep_them_busy(width, said):
    warned: list[str] = []
    changes = {"search.engine": "processes", "search.workers": 3, "search.width": width, "search.seeds": 2}
    search(spec(search__trials=7, search__generation=6).override(changes), warn=warned.append)
    assert [one.partition(";")[0] for one in warned] == said
    assert all("search.width: 4 would" in one for one in warned)


# -- processes that are killed -----------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_changes_nothing(undisturbed, monkeypatch):
    killed: list[int] = []
    saved = Checkpoint.save

    def kill_one(reached, path):
        saved(reached, path)
        if len(killed) < 2:
            below = [child for server in psutil.Process().children() for child in server.children()]  # of the fork server
            workers = [child for child in below if alive(child)]
            if workers:
                workers[-1].kill()
                killed.append(workers[-1].pid)

    experiment = spec(**LONGER)
    monkeypatch.setattr(Checkpoint, "save", kill_one)
    there = experiment.override({"search.engine": "processes", "search.workers": 2})
    assert outcome(search(there)) == undisturbed(experiment)
    assert len(set(killed)) == 2


class Running:
    """`deltarule search` as people start it, in a process of its own."""

    def __init__(self, folder: Path, experiment: Experiment, *options: str) -> None:
        (folder / "params.yaml").write_text(dump(experiment))
        command = [sys.executable, "-m", "pipelines.cli", "search", *options]
        self.said = folder / f"said-{secrets.token_hex(3)}"
        with self.said.open("w") as said:
            self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=said, env=environment())
        self.folder = folder

    def told(self, name: str, count: int) -> None:
        """Wait until so many trials are written."""
        appear(
            lambda: len(list((self.folder / f"studies/{name}/curves").glob("*.csv"))) >= count or self.process.poll() is not None
        )
        assert self.process.poll() is None, self.said.read_text()

    def ended(self, seconds: float = 60) -> tuple[int, list[str]]:
        """Exit code and the lines on standard error that are no progress."""
        code = self.process.wait(seconds)
        return code, [line for line in self.said.read_text().splitlines() if line.strip()]


def alive(process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def started(place) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def start(experiment: Experiment, *options: str) -> Running:
        made.append(Running(place, experiment, *options))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()


# -- PostgreSQL --------------------------------------------------------------------------------------------------------------


def test_a_driver_killed_beside_its_database_is_gone_on_from_and_a_second_one_is_refused(started, undisturbed, known_database):
    experiment = spec(**{**LONGER, "train__epochs": 240, "search__rung": 80}).override("search.storage", known_database)
    wanted = undisturbed(experiment)
    first = started(experiment)
    first.told("iris", 5)
    code, said = started(experiment).ended()
    assert (code, len(said)) == (2, 1) and "is being run by another process" in said[0]
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    assert 5 <= len(list(Path("studies/iris/curves").glob("*.csv"))) < 16
    assert outcome(search(experiment)) == wanted


def test_a_database_that_is_not_there_is_one_line(started):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        url = f"postgresql+psycopg://me@127.0.0.1:{taken.getsockname()[1]}/db"
        code, said = started(spec().override("search.storage", url)).ended(seconds=60)
    assert (code, len(said)) == (2, 1), said
    assert "refused" in said[0]


def test_a_database_that_fails_in_the_middle_is_one_error_and_the_study_goes_on(
    undisturbed, known_database, database, monkeypatch
):
    """Its sessions are ended and no new one is let in, as when a server goes; then it is back."""
    experiment = spec(**SHORT).override("search.storage", known_database)
    name, admin = database.rpartition("/")[2], database.replace("+psycopg", "").rpartition("/")[0] + "/postgres"
    written: list[Path] = []
    saved = Checkpoint.save

    def goes(reached, path):
        saved(reached, path)
        written.append(path)
        if len(written) == 4:
            query(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            query(admin, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", goes)
        with pytest.raises(StorageError, match="see that it answers, then give the command again") as raised:
            search(experiment)
    assert raised.value.exit_code == 2 and PASSWORD not in str(raised.value) and "\n" not in str(raised.value)
    query(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert outcome(search(experiment)) == undisturbed(experiment)


# -- two drivers -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def at_stack(monkeypatch) -> Callable[[dict[int, Callable[[], object]]], None]:
    """Has things happen while a driver trains its first, second ... stack."""

    def happen(things: dict[int, Callable[[], object]]) -> None:
        count, saved = itertools.count(1), Checkpoint.save

        def save(reached, path):
            saved(reached, path)
            things.get(next(count), bool)()

        monkeypatch.setattr(Checkpoint, "save", save)

    return happen


def test_a_driver_whose_lock_dies_unseen_goes_on_alone_and_never_beside_another(
    undisturbed, known_database, database, at_stack, tmp_path
):
    """The lock's session is ended as by a restart; the other driver is on another machine, that is in another folder."""
    experiment, there = spec(**SHORT).override("search.storage", known_database), tmp_path / "there"
    admin, other = database.replace("+psycopg", ""), ExitStack()

    def lock_dies() -> None:
        query(admin, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")

    at_stack({2: lock_dies, 4: lambda: (lock_dies(), other.enter_context(locked(there, known_database, "iris")))})
    with other, pytest.raises(StorageError, match="'iris' is being run by another process on the database"):
        search(experiment, name="iris")
    theirs: list[object] = []
    at_stack({1: lambda: (lock_dies(), theirs.extend(outcome(search(experiment, project=there, name="iris"))))})
    with pytest.raises(StorageError, match="another process wrote to it"):
        search(experiment, name="iris")
    assert outcome(search(experiment, name="iris")) == theirs == undisturbed(spec(**SHORT))


@pytest.mark.parametrize(("name", "replaced"), [("driver.lock", False), ("optuna.log", True)])
def test_a_driver_whose_files_are_removed_or_replaced_stops(place, undisturbed, at_stack, name, replaced):
    file = place / "studies/iris" / name

    def goes() -> None:
        file.rename(place / "aside")
        if replaced:
            shutil.copy(place / "aside", file)

    at_stack({4: goes})
    with pytest.raises(StorageError, match=f"{name} was removed or replaced"):
        search(spec(**SHORT), name="iris")
    (place / "aside").rename(file)
    assert outcome(search(spec(**SHORT), name="iris")) == undisturbed(spec(**SHORT))


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------------


INTERRUPTED_IN_THE_LOCK = """
import os, signal, sys
import optuna.storages.journal._file as module
from pipelines import cli
signal.signal(signal.SIGINT, signal.default_int_handler)
left = int(sys.argv[1])
class Os:
    def __getattr__(self, name):
        return getattr(os, name)
    def unlink(self, path):
        global left
        os.unlink(path)
        left -= 1
        if left == 0:
            signal.raise_signal(signal.SIGINT)
module.os = Os()
cli.main(["search"])
"""


@pytest.mark.parametrize("place_of_it", [1, 12])  # when the study is made, and in the middle
def test_ctrl_c_between_two_lines_of_optunas_lock_is_ctrl_c(place, undisturbed, place_of_it):
    """Optuna answers it with FileNotFoundError: JournalFileSymlinkLock.release removes its file a second time."""
    (place / "params.yaml").write_text(dump(spec(**SHORT)))
    command = [sys.executable, "-c", INTERRUPTED_IN_THE_LOCK, str(place_of_it)]
    done = subprocess.run(command, cwd=place, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert outcome(search(spec(**SHORT))) == undisturbed(spec(**SHORT))


@pytest.mark.parametrize(
    "changes, width",
    [
        ({}, 8),
        ({"search.generation": 64}, 16),
        ({"search.generation": 5}, 3),
        ({"search.generation": 1}, 1),
        ({"search.generation": 4, "search.seeds": 3}, 6),
        ({"search.generation": 4, "data.split.folds": 5}, 10),
        ({"search.width": 5}, 5),
    ],
)
def test_two_workers_have_a_stack_each_unless_it_would_be_wider_than_pays(changes, width):
    assert driver.processor_width(Experiment().override(changes)) == width
