"""Whatever the store does, a run ends as it would have, and the store holds every point once afterwards.

Against real `mlflow server` processes, which are killed, stopped and started again, and against databases that are locked.
Nothing here looks at a clock: a store that is down stays down for the whole run.
"""

from __future__ import annotations

import csv
import http.server
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from conftest import BIN, call, empty_store, environment
from stored import DEADLINE, free_port, until
from synthetic_run import make

from pipelines.record import Recording, recording
from pipelines.record.sync import send_waiting, sync
from pipelines.spec import Experiment
from pipelines.stages.paths import RunPaths
from pipelines.tracking import TrackingError, store
from pipelines.tracking.events import ungrouped
from pipelines.tracking.journal import journals

pytestmark = pytest.mark.slow
FINGERPRINT = "3f2a" + "0" * 28
LONG = """
model: {hidden: [8], activation: tanh}
train: {backend: reference, epochs: 100000, batch_size: 256, early_stopping: {patience: null}}
validation: {baselines: false}
"""


class Server:
    """`mlflow server` on a database, which can be taken away and brought back."""

    def __init__(self, folder, *options):
        self.database, self.options = folder / "mlflow.db", options
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self, **variables):
        if self.process is None:
            options = [*self.options, "--backend-store-uri", f"sqlite:///{self.database}", "--port", str(self.port)]
            options += ["--workers", "1", "--artifacts-destination", (self.database.parent / "artifacts").as_uri()]
            quiet = environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", **variables)
            command = [sys.executable, "-P", "-m", "mlflow", "server", *options]
            self.process = subprocess.Popen(
                command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
        until(self.answers, "the server")

    def answers(self):
        try:
            return (
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.uri + "/health", timeout=5).status == 200
            )
        except OSError:
            return False

    def signal(self, sign):
        os.killpg(self.process.pid, sign)

    def kill(self):
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def project(tmp_path):
    (tmp_path / ".dvc").mkdir()
    empty_store(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Requests are given up sooner than for people, in the uploader too; which is waited for until it has all sent, or fails."""
    monkeypatch.setattr(recording, "GRACE_SECONDS", DEADLINE)
    monkeypatch.setattr(recording, "LONGEST_SECONDS", DEADLINE)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


class Run:
    """A run whose epochs are over when the test says so; its outs are there from the first."""

    def __init__(self, project, uri=None):
        self.project, self.experiment = project, Experiment.model_validate({"tracking": {"experiment": "tests", "uri": uri}})
        self.places = make(project / "runs/1", epochs=8)
        with self.places.history.open(newline="") as file:
            self.rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        self.recording = Recording(self.experiment, RunPaths(self.places.root, project=project), new_run=True, name=project.name)
        self.recording.start(FINGERPRINT, 1)

    def epochs(self, first, last):
        for row in self.rows[first - 1 : last]:
            self.recording.epoch(row)

    def end(self):
        self.recording.finish()
        return self.recording.close()

    def sent(self):
        return self.recording.journal.sent()

    def sync(self):
        return dict(send_waiting(self.project, self.experiment.tracking))

    def is_on_record_once(self, database):
        """Every number of every epoch, as often as it happened, and all that comes after; nothing is left to be sent."""
        [(run_id, status)] = asked(database, "SELECT run_uuid, status FROM runs WHERE name = ?", self.project.name)
        assert status == "FINISHED" and journals(self.project) == []
        found = asked(database, "SELECT step, key, value, COUNT(*) FROM metrics WHERE run_uuid = ? GROUP BY step, key", run_id)
        assert {count for *_, count in found} == {1}
        kept = {(step, ungrouped(key)): value for step, key, value, _ in found if step}
        assert kept == {(int(row["epoch"]), key): value for row in self.rows for key, value in row.items() if key != "epoch"}
        assert {"best_epoch", "validate/accuracy", "test/accuracy"} <= {key for _, key, *_ in found}
        return True


def asked(database, question, *values):
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
        return connection.execute(question, values).fetchall()


def steps(database, name):
    question = "SELECT DISTINCT step FROM metrics JOIN runs USING (run_uuid) WHERE name = ? AND key = 'val/loss' ORDER BY step"
    return [step for (step,) in asked(database, question, name)]


def test_the_machine_is_measured_where_mlflows_own_variable_asks_for_it(project, monkeypatch):
    pytest.importorskip("psutil")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    run, database = Run(project), project / ".mlflow/mlflow.db"
    run.epochs(1, 4)
    points = "SELECT step, COUNT(*) FROM metrics WHERE key = 'system/cpu_utilization_percentage' GROUP BY step"
    until(lambda: len(asked(database, points)) > 2, "points of the processor")
    run.epochs(5, 8)
    assert run.end().complete
    assert {count for _, count in asked(database, points)} == {1} and steps(database, project.name) == [*range(1, 9)]


# A server --------------------------------------------------------------------------------------------------------------


def test_mlflow_follows_a_run_while_it_goes_on(project, server):
    server.start()
    run = Run(project, server.uri)
    for number in (1, 2):
        run.epochs(number, number)
        until(lambda number=number: steps(server.database, project.name) == list(range(1, number + 1)), "an epoch")
    assert asked(server.database, "SELECT status FROM runs WHERE name = ?", project.name) == [("RUNNING",)]
    run.epochs(3, 8)
    outcome = run.end()
    assert outcome.run_id and not outcome.warning
    assert run.is_on_record_once(server.database)
    [(begun, over)] = asked(server.database, "SELECT start_time, end_time FROM runs WHERE name = ?", project.name)
    assert 0 < over - begun < 1000 * DEADLINE


def test_a_server_that_is_absent_all_the_time_gets_all_from_the_next_sync(project, server):
    server.kill()
    run = Run(project, server.uri)
    run.epochs(1, 8)
    assert "Connection refused)); `deltarule sync` sends them" in run.end().warning
    server.start()
    assert run.sync() == {"runs/1": asked(server.database, "SELECT run_uuid FROM runs WHERE name = ?", project.name)[0][0]}
    assert run.is_on_record_once(server.database)


def test_a_server_that_dies_and_comes_back_gets_what_it_missed_while_the_run_goes_on(project, server):
    server.start()
    run = Run(project, server.uri)
    run.epochs(1, 3)
    until(lambda: steps(server.database, project.name) == [1, 2, 3], "epochs")
    server.kill()
    run.epochs(4, 6)
    until(lambda: run.sent().error, "a failure")
    server.start()
    until(lambda: steps(server.database, project.name) == [1, 2, 3, 4, 5, 6], "what was missed")
    run.epochs(7, 8)
    assert not run.end().warning
    assert run.is_on_record_once(server.database)


def test_a_server_that_hangs_holds_up_no_run(project, server):
    server.start()
    run = Run(project, server.uri)
    run.epochs(1, 3)
    until(lambda: steps(server.database, project.name) == [1, 2, 3], "epochs")
    server.signal(signal.SIGSTOP)  # it accepts, and never answers
    run.epochs(4, 8)
    warning = run.end().warning
    assert "wait for the store" in warning
    server.signal(signal.SIGCONT)
    run.sync()
    assert run.is_on_record_once(server.database)


class Unavailable(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(503)

    do_POST = do_GET

    def log_message(self, *_):
        pass


def test_a_server_that_answers_503_is_told_with_its_answer(project):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Unavailable) as stub:
        threading.Thread(target=stub.serve_forever, daemon=True).start()
        run = Run(project, f"http://127.0.0.1:{stub.server_port}")
        run.epochs(1, 8)
        assert "503" in run.end().warning
        with pytest.raises(TrackingError, match="503"):
            run.sync()
        stub.shutdown()
    [waits] = journals(project)
    assert waits.state().status == "FINISHED" and "503" in waits.sent().error


class Slow(http.server.BaseHTTPRequestHandler):
    """Answers as the server behind it does, each request after a while."""

    behind, seen = "", []

    def do_GET(self):
        time.sleep(0.05)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.command, self.path, body))
        headers = {name: value for name, value in self.headers.items() if name != "Host"}
        request = urllib.request.Request(self.behind + self.path, body or None, headers, method=self.command)
        try:
            answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
        except urllib.error.HTTPError as error:
            answer = error
        content = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_PATCH = do_GET

    def log_message(self, *_):
        pass


def test_a_slow_server_gets_a_run_in_few_requests_and_nothing_twice(project, server, monkeypatch):
    """Each request is waited for, for less than all of them take."""
    from mlflow import MlflowClient

    server.start()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as proxy:
        Slow.behind, Slow.seen = server.uri, []
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        places, uri = make(project, epochs=9), f"http://127.0.0.1:{proxy.server_port}"
        run_id = sync(places, Experiment.model_validate({"tracking": {"experiment": "slow", "uri": uri}}))
        proxy.shutdown()
    client = MlflowClient(tracking_uri=server.uri)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(run_id, "val/loss")) == 9
    puts = [(path, body) for command, path, body in Slow.seen if command == "PUT"]
    others = [(path, body) for command, path, body in Slow.seen if command != "PUT"]
    batches = [body for path, body in others if path.endswith("log-batch")]
    assert len({*puts}) == len(puts) > 10 and len({*batches}) == len(batches)
    assert len(others) < 30, [path for path, _ in others]


def test_a_server_that_asks_for_a_password_gets_the_run_by_mlflows_own_variables(project, tmp_path, monkeypatch):
    """And neither the journal nor the record of it holds them; without them, or with others, the run waits."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # hashing a password takes its time
    password, folder = "password:1 that is long", tmp_path / "guarded"
    (folder / "auth").mkdir(parents=True)
    settings = {"default_permission": "READ", "database_uri": f"sqlite:///{folder}/auth/users.db", "admin_username": "ada"}
    settings |= {"admin_password": password, "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth"}
    (folder / "auth/settings.ini").write_text("[mlflow]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    server = Server(folder, "--app-name", "basic-auth")
    server.start(MLFLOW_AUTH_CONFIG_PATH=str(folder / "auth/settings.ini"), MLFLOW_FLASK_SERVER_SECRET_KEY="for tests")
    try:
        run = Run(project, server.uri)
        run.epochs(1, 8)
        assert "401" in run.end().warning
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
        with pytest.raises(TrackingError, match="401"):
            run.sync()
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        assert [*run.sync()] == ["runs/1"]
    finally:
        server.kill()
    assert run.is_on_record_once(server.database)
    kept = [path for place in (project, folder) for path in place.rglob("*") if path.is_file() and path.parent.name != "auth"]
    assert not [path for path in kept if password.encode() in path.read_bytes()]


# A database ------------------------------------------------------------------------------------------------------------


def test_a_database_that_is_locked_all_the_time_gets_all_from_the_next_sync(project, monkeypatch):
    with sqlite3.connect(project / ".mlflow/mlflow.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        run = Run(project)
        run.epochs(1, 8)
        assert "wait for the store" in run.end().warning
        monkeypatch.setattr(store, "_BUSY_SECONDS", 0.1)
        with pytest.raises(TrackingError, match="database is locked"):
            run.sync()
        other.execute("ROLLBACK")
    run.sync()
    assert run.is_on_record_once(project / ".mlflow/mlflow.db")


def test_an_uploader_that_is_killed_between_two_batches_leaves_no_point_twice(project):
    database = project / ".mlflow/mlflow.db"
    run = Run(project)
    run.epochs(1, 3)
    until(lambda: steps(database, project.name) == [1, 2, 3], "epochs")
    uploader = run.recording.uploader.process
    uploader.kill()
    uploader.wait()
    # What it had sent and could not note any more:
    sent = run.sent()
    run.recording.journal.note(type(sent)(**{**sent.__dict__, "offset": 0, "events": 0}))
    run.epochs(4, 8)
    assert "wait for the store (its sender was ended)" in run.end().warning
    run.sync()
    assert run.is_on_record_once(database)


def test_runs_that_wait_are_sent_by_the_next_run(project):
    database = project / ".mlflow/mlflow.db"
    with sqlite3.connect(database, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        run = Run(project)
        run.epochs(1, 8)
        run.recording.finish()
        run.recording.close(leave=False)
        other.execute("ROLLBACK")
    for name in ("later", "last"):  # on a busy machine the first may not come to the end of it
        later = Recording(run.experiment, RunPaths(run.places.root, project=project), new_run=True, name=name)
        later.start(FINGERPRINT, 1)
        later.finish()
        assert later.close().run_id
        if not journals(project):
            break
    until(lambda: not journals(project), "the senders, which go on when their runs have ended")
    assert run.is_on_record_once(database)


# Processes that end ----------------------------------------------------------------------------------------------------


def start(project, *arguments):
    (project / "params.yaml").write_text(LONG)
    return subprocess.Popen(
        [BIN / "deltarule", *arguments], cwd=project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def statuses(project):
    return [status for (status,) in asked(project / ".mlflow/mlflow.db", "SELECT status FROM runs ORDER BY start_time")]


def trained(project):
    """Epochs that the database holds."""
    return asked(project / ".mlflow/mlflow.db", "SELECT COUNT(DISTINCT step) FROM metrics WHERE step > 0")[0][0]


def test_a_run_that_was_killed_is_marked_by_the_next_command_and_goes_on_as_the_same_run(project):
    (project / "params.yaml").write_text(LONG)
    call("deltarule", "split", cwd=project)
    process = start(project, "train")
    until(lambda: trained(project) >= 2, "epochs")
    process.kill()
    process.communicate()
    assert statuses(project) == ["RUNNING"]
    call("deltarule", "sync", cwd=project)
    assert statuses(project) == ["KILLED"] and journals(project) == []
    before = trained(project)
    process = start(project, "train")
    until(lambda: statuses(project) == ["RUNNING"] and trained(project) > before, "epochs of the run that goes on")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 143 and said.splitlines()[-1] == "terminated"
    [checkpoint] = (project / ".deltarule").glob("checkpoint-*")
    call("deltarule", "sync", check=False, cwd=project)
    assert statuses(project) == ["KILLED"]
    [[message]] = asked(project / ".mlflow/mlflow.db", "SELECT value FROM tags WHERE key = 'deltarule.message'")
    assert message == "ended by SIGTERM"
    assert asked(project / ".mlflow/mlflow.db", "SELECT MAX(n) FROM (SELECT COUNT(*) n FROM metrics GROUP BY key, step)") == [
        (1,)
    ]
    # The checkpoint is of the very step at which it stopped: all epochs before it are on record, and none after.
    from backends.supervisor import Checkpoint

    step = Checkpoint.load(checkpoint).numbers["step"]
    assert trained(project) == step // 5  # 1078 rows in batches of 256


def test_a_run_that_raises_is_failed_with_its_message(project, monkeypatch):
    from pipelines.api.launch import launch

    def progress(record):
        if record["epoch"] == 2:
            raise RuntimeError("the lid is open, password=hunter2")

    monkeypatch.chdir(project)
    spec = Experiment.model_validate(
        {"model": {"hidden": [8]}, "train": {"backend": "reference", "epochs": 3}, "validation": {"baselines": False}}
    )
    with pytest.raises(RuntimeError, match="the lid is open"):
        launch(spec, progress=progress)
    assert statuses(project) == ["FAILED"] and trained(project) == 2
    [[message]] = asked(project / ".mlflow/mlflow.db", "SELECT value FROM tags WHERE key = 'deltarule.message'")
    assert message == "the lid is open, password=***"


def test_a_write_that_was_cut_short_is_undone_by_who_reads(project):
    database = project / ".mlflow/mlflow.db"
    (project / "params.yaml").write_text("{}\n")
    write = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
    write += "c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN IMMEDIATE'); c.execute('CREATE TABLE t (x)'); "
    write += "c.executemany('INSERT INTO t VALUES (?)', [('x' * 1000,)] * 1000); os.kill(os.getpid(), 9)"
    before = database.read_bytes()
    subprocess.run([sys.executable, "-c", write, database])
    assert database.read_bytes() != before and database.with_name("mlflow.db-journal").stat().st_size
    assert "no runs" in call("deltarule", "runs", cwd=project).stdout.lower()
    assert database.read_bytes() == before


def test_eight_runs_that_start_at_once_on_a_fresh_store_are_eight_runs_on_record(tmp_path):
    (tmp_path / ".dvc").mkdir()
    short = ["--set", "train.epochs=2", "--json"]
    started = [start(tmp_path, "run", "--name", f"twin {number}", *short) for number in range(8)]
    said = [process.communicate(timeout=2 * DEADLINE) for process in started]
    assert [process.returncode for process in started] == [0] * 8, said
    until(lambda: not list((tmp_path / ".deltarule/log").iterdir()), "the senders, which go on and leave nothing")
    assert statuses(tmp_path) == ["FINISHED"] * 8
    assert {json.loads(out)["run_id"] for out, _ in said} - {None} <= {
        run for (run,) in asked(tmp_path / ".mlflow/mlflow.db", "SELECT run_uuid FROM runs")
    }
