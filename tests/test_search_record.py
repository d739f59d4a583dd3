"""A study is on record once, wholly, as one run with its trials inside, at a price that it can pay."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
from synthetic_study import TRACKING, make, spec, study

from pipelines.search import record as search_record
from pipelines.search.record import Head, send_study, send_waiting_studies, study_events, trial_events
from pipelines.search.records import load_importances, load_study, load_trial, save_study, save_trial, trial_path
from pipelines.search.table import ranked
from pipelines.spec import Experiment, flat
from pipelines.tracking import TrackingError, bulk, direct, family, locate

EXPERIMENT = Experiment.model_validate({"tracking": TRACKING})
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch):
    for name in [n for n in os.environ if n.startswith(("MLFLOW_", "DVC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """An MLflow database without experiments. To make one takes seconds; to copy it does not."""
    place = locate(EXPERIMENT.tracking, tmp_path_factory.mktemp("template"))
    place.database.parent.mkdir()
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=place.uri).search_experiments(max_results=1)
    return place.database


@pytest.fixture
def project(tmp_path, database):
    root = tmp_path / "a project"
    (root / ".mlflow").mkdir(parents=True)
    (root / ".dvc").mkdir()
    shutil.copy(database, root / ".mlflow/mlflow.db")
    return root


@pytest.fixture(params=["a database at once", "one by one"])
def road(request, monkeypatch):
    """Both ways of sending trials: in one transaction a batch, and through the client, as to a server."""
    if request.param == "one by one":
        monkeypatch.setattr(direct, "known", lambda database: False)
    monkeypatch.setattr(family, "A_BATCH", 3)
    return request.param


def client_of(project):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=locate(EXPERIMENT.tracking, project).uri)


def runs(project, kind):
    client = client_of(project)
    everywhere = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(everywhere, f"tags.`deltarule.kind` = '{kind}'", max_results=5000)
    return sorted(found, key=lambda run: int(run.data.tags.get("deltarule.trial", 0)))


def rows(project, table):
    with sqlite3.connect(project / ".mlflow/mlflow.db") as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]


def points(project):
    return [(row["run_uuid"], row["key"], row["step"]) for row in rows(project, "metrics")]


def files(project, run_id):
    base = project / ".mlflow/artifacts" / run_id / "artifacts"
    return {p.relative_to(base).as_posix(): p for p in base.rglob("*") if p.is_file()}


# Files -----------------------------------------------------------------------------------------------------------------


def test_a_study_read_back_is_the_study_that_was_written_nan_and_infinity_too(tmp_path):
    made = study(20)
    save_study(tmp_path, made, {"model.dropout": 1.0}, trials=True)
    again = load_study(tmp_path)
    assert repr(again) == repr(made)  # NaN is not itself
    failed = load_trial(trial_path(tmp_path, 7))
    assert math.isnan(failed.history[-1]["train_loss"]) and failed.history[-1]["val_loss"] == math.inf
    assert load_importances(tmp_path) == {"model.dropout": 1.0}


def test_the_files_of_a_study_are_strict_json_and_the_same_bytes_each_time(tmp_path):
    for place in ("one", "two"):
        save_study(tmp_path / place, study(20), trials=True)
    written = {p.relative_to(tmp_path / "one"): p.read_bytes() for p in (tmp_path / "one").rglob("*.json")}
    assert {p.relative_to(tmp_path / "two"): p.read_bytes() for p in (tmp_path / "two").rglob("*.json")} == written

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    for content in written.values():
        json.loads(content, parse_constant=refuse)


def test_what_a_killed_writer_leaves_is_no_trial(tmp_path, monkeypatch):
    save_study(tmp_path, study(2), trials=True)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        patch.setattr(Path, "unlink", lambda *_, **more: None)  # who is killed cleans nothing up
        save_trial(trial_path(tmp_path, 2), study(3).trials[2])
    assert len(list((tmp_path / "trials").iterdir())) == 3  # the temporary file is there
    assert [trial.number for trial in load_study(tmp_path).trials] == [0, 1]


def test_a_file_that_holds_no_trial_is_named_with_what_to_do(tmp_path):
    path = trial_path(tmp_path, 3)
    path.parent.mkdir()
    path.write_text('{"number": 3')
    with pytest.raises(ValueError, match=r"00003\.json must hold a trial.*remove it, and continue the study"):
        load_trial(path)


# What is on record -----------------------------------------------------------------------------------------------------


def test_a_study_is_a_run_and_its_trials_are_runs_inside_it(project, road):
    folder = make(project, 20, epochs=4)
    run_id = send_study(folder, project=project, final=True)
    [parent], children = runs(project, "study"), runs(project, "trial")
    assert (parent.info.run_id, parent.info.run_name, parent.info.status) == (run_id, "s", "FINISHED")
    assert [child.data.tags["deltarule.trial"] for child in children] == [str(n) for n in range(20)]
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {run_id}
    assert {child.data.tags["deltarule.study"] for child in [parent, *children]} == {"s"}
    assert {child.data.tags["deltarule.origin"] for child in [parent, *children]} == {"search"}
    assert parent.data.tags["mlflow.user"] == children[3].data.tags["mlflow.user"]


def test_trials_have_the_status_that_is_nearest_and_keep_optunas_word(project, road):
    folder = make(project, 40, epochs=4)
    send_study(folder, project=project)
    trials, children = load_study(folder).trials, runs(project, "trial")
    assert [c.data.tags["deltarule.state"] for c in children] == [t.state for t in trials]
    statuses = {(c.data.tags["deltarule.state"], c.info.status) for c in children}
    assert statuses == {("COMPLETE", "FINISHED"), ("PRUNED", "KILLED"), ("FAIL", "FAILED")}
    assert [c.data.tags["deltarule.reason"] for c in children] == [t.reason for t in trials]


def test_a_trial_carries_its_whole_spec_its_history_and_its_best_epoch(project, road):
    folder = make(project, 8, epochs=6)
    send_study(folder, project=project)
    made, client = load_study(folder), client_of(project)
    for trial, child in zip(made.trials, runs(project, "trial"), strict=True):
        resolved = made.spec.override(dict(trial.changes))
        expected = {k: v if isinstance(v, str) else json.dumps(v) for k, v in flat(resolved).items()}
        expected = {k: v for k, v in expected.items() if k.split(".")[0] not in ("search", "tracking", "thresholds")}
        assert child.data.params == {**expected, "regularization.l1 or": json_of(trial.params["regularization.l1 or"])}
        history = {p.step: p.value for p in client.get_metric_history(child.info.run_id, "val_accuracy")}
        assert history == {row["epoch"]: row["val_accuracy"] for row in trial.history}
        best = next((row for row in trial.history if row["epoch"] == trial.best_epoch), None)
        assert child.data.metrics["best_val_loss"] == best["val_loss"]
        assert child.data.metrics.get("value") == (trial.values[0] if trial.values else None)
        assert child.data.metrics["weights"] == trial.weights
        assert child.data.tags["deltarule.steps"] == str(trial.steps)


def json_of(value):
    return value if isinstance(value, str) else json.dumps(value)


def test_both_roads_leave_the_same_rows(project, tmp_path, database, monkeypatch):
    """Else a new MLflow has changed its tables, or what its client writes into them: then look at bulk.py."""
    other = tmp_path / "other"
    (other / ".mlflow").mkdir(parents=True)
    (other / ".dvc").mkdir()
    shutil.copy(database, other / ".mlflow/mlflow.db")
    for place in (project, other):
        if place is other:
            monkeypatch.setattr(direct, "known", lambda database: False)
        else:
            assert direct.known(place / ".mlflow/mlflow.db")
        send_study(make(place, 20, epochs=4), project=place, final=True)
    for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
        assert plain(project, table) == plain(other, table), table


def plain(project, table):
    """Rows without what differs between any two sendings: ids, times, the parent's own notes; ids by their run's name."""
    names = {row["run_uuid"]: row["name"] for row in rows(project, "runs")}
    found = []
    for row in rows(project, table):
        if row.get("key") in (family.BEGUN, "mlflow.parentRunId"):
            row["value"] = names.get(row["value"], "")
        where = row.get("artifact_uri", "").replace(project.as_uri(), "").replace(row["run_uuid"], "ID")
        row |= {"run_uuid": names[row["run_uuid"]], **({"artifact_uri": where} if where else {})}
        found.append(sorted((k, str(v)) for k, v in row.items() if k not in ("timestamp", "start_time", "experiment_id")))
    return sorted(found)


def test_the_parent_shows_what_was_best_after_how_many_trials(project):
    folder = make(project, 24, epochs=4)
    run_id = send_study(folder, project=project, final=True)
    trials, client = load_study(folder).trials, client_of(project)
    done = [(t.number + 1, t.values[0]) for t in trials if t.values]
    expected = {n: min(v for step, v in done if step <= n) for n in range(done[0][0], 25)}
    assert {p.step: p.value for p in client.get_metric_history(run_id, "best_value")} == expected
    run, winner = client.get_run(run_id), load_study(folder).trial(load_study(folder).best)
    best = next(row for row in winner.history if row["epoch"] == winner.best_epoch)
    assert (run.data.metrics["best_trial"], run.data.metrics["best_val_accuracy"]) == (winner.number, best["val_accuracy"])
    counts = load_study(folder).counts()
    assert {s: int(run.data.metrics[f"trials_{s.lower()}"]) for s in counts} == counts
    assert run.data.tags["deltarule.trials.pruned"] == str(counts["PRUNED"])
    assert run.data.params["search.space.model.dropout.high"] == "0.6" and run.data.params["train.epochs"] == "30"
    assert {"params.yaml", "study.json", "trials.csv", "winner.yaml"} <= files(project, run_id).keys()


def test_of_several_metrics_each_has_its_best_and_there_is_no_winner(project):
    folder = make(project, 20, epochs=4, metrics=("accuracy", "weights"))
    run = client_of(project).get_run(send_study(folder, project=project, final=True))
    done = [t for t in load_study(folder).trials if t.values]
    assert run.data.metrics["best_value_accuracy"] == max(t.values[0] for t in done)
    assert run.data.metrics["best_value_weights"] == min(t.values[1] for t in done)
    assert "best_trial" not in run.data.metrics
    assert runs(project, "trial")[0].data.metrics["value_weights"] == done[0].values[1]


def test_of_several_seeds_the_means_and_their_spread_are_kept(project):
    folder = make(project, 3, epochs=4, seeds=3, experiment=spec(search={"seeds": 3}))
    send_study(folder, project=project)
    trial, child = load_study(folder).trials[0], runs(project, "trial")[0]
    assert child.data.metrics["value_spread"] == trial.spread[0]
    assert child.data.metrics["best_val_loss"] == child.data.metrics["value"] == trial.values[0]
    assert "best_epoch" not in child.data.metrics and child.data.tags["deltarule.seeds"] == "3"


def test_figures_and_their_numbers_are_kept_where_they_are(project):
    folder = make(project, 3, epochs=2)
    (folder / "figures").mkdir()
    for name in ("history.png", "history.csv"):
        (folder / "figures" / name).write_text(name)
    assert {"figures/history.png", "figures/history.csv"} <= files(
        project, send_study(folder, project=project, final=True)
    ).keys()


def test_events_of_a_study_are_plain_data(project):
    folder = make(project, 3, epochs=2)
    head, made = Head.of(folder), load_study(folder)
    for events in (study_events(head, made.trials, folder, "RUNNING"), trial_events(head, made.trials[0])):
        assert (events[0].kind, events[-1].kind) == ("create", "end")
        assert json.loads(json.dumps([event.values for event in events])) == [event.values for event in events]


# How it goes on --------------------------------------------------------------------------------------------------------


def test_a_study_is_running_then_over_and_running_again_when_it_is_topped_up(project):
    folder = make(project, 4, epochs=2)
    status = lambda: runs(project, "study")[0].info.status  # noqa: E731
    send_study(folder, project=project)
    assert status() == "RUNNING"
    send_study(folder, project=project, interrupted=True)
    assert status() == "KILLED"
    send_study(folder, project=project, final=True)
    assert status() == "FINISHED"
    make(project, 6, epochs=2)
    send_study(folder, project=project)
    assert status() == "RUNNING" and len(runs(project, "trial")) == 6


def test_a_study_of_which_no_trial_completed_failed(project):
    made = study(16, epochs=2)
    folder = make(project, 1, epochs=2)
    shutil.rmtree(folder / "trials")
    save_trial(trial_path(folder, 0), made.trials[7].__class__(**{**made.trials[7].__dict__, "number": 0}))
    send_study(folder, project=project, final=True)
    assert runs(project, "study")[0].info.status == "FAILED"


def test_sending_again_adds_nothing(project, road):
    folder = make(project, 10, epochs=4)
    run_id = send_study(folder, project=project, final=True)
    before = (
        sorted(points(project)),
        len(rows(project, "tags")),
        {p: f.stat().st_mtime_ns for p, f in files(project, run_id).items()},
    )
    assert send_study(folder, project=project, final=True) == run_id
    after = (
        sorted(points(project)),
        len(rows(project, "tags")),
        {p: f.stat().st_mtime_ns for p, f in files(project, run_id).items()},
    )
    assert after == before


def test_trials_that_end_out_of_order_are_all_sent_and_what_was_best_waits_for_the_missing(project, road):
    folder = make(project, 9, epochs=2)
    kept = trial_path(folder, 4).read_bytes()
    trial_path(folder, 4).unlink()
    run_id = send_study(folder, project=project)
    assert len(runs(project, "trial")) == 8
    assert max(p.step for p in client_of(project).get_metric_history(run_id, "best_value")) == 4
    trial_path(folder, 4).write_bytes(kept)
    send_study(folder, project=project, final=True)
    assert len(runs(project, "trial")) == 9 and len(points(project)) == len(set(points(project)))
    assert [p.step for p in client_of(project).get_metric_history(run_id, "best_value")] == list(range(1, 10))


def test_another_study_of_the_same_name_is_a_run_of_its_own(project):
    first = send_study(make(project, 2, epochs=2), project=project)
    shutil.rmtree(project / "studies")
    assert send_study(make(project, 2, epochs=2), project=project) == first  # the same numbers: the same study
    shutil.rmtree(project / "studies")
    assert send_study(make(project, 2, epochs=2, seed=1), project=project) != first


CALLS = ("create_run", "log_batch", "log_artifact", "log_text", "update_run")


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 5, 8, 13, 22])
@pytest.mark.parametrize("way", ["a database at once", "one by one"])
def test_cut_short_anywhere_the_next_sending_completes_it_and_no_point_is_kept_twice(project, monkeypatch, way, calls):
    if way == "one by one":
        monkeypatch.setattr(direct, "known", lambda database: False)
    monkeypatch.setattr(family, "A_BATCH", 3)
    monkeypatch.setattr(family, "METRICS_A_CALL", 20)
    folder = make(project, 9, epochs=3)
    left = [calls]
    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(f"mlflow.MlflowClient.{name}", cut_short_after(left, name))
            patch.setattr(direct.Client, name, cut_short(left, getattr(direct.Client, name)))
        patch.setattr(bulk, "insert", cut_short(left, bulk.insert))
        try:
            send_study(folder, project=project)
        except KeyboardInterrupt:
            left = None
    assert left is None or way == "a database at once", "not cut short: fewer calls than that were made"
    send_study(folder, project=project, final=True)
    children = runs(project, "trial")
    assert [int(child.data.tags["deltarule.trial"]) for child in children] == list(range(9))
    assert {child.info.status for child in children} <= {"FINISHED", "FAILED", "KILLED"}
    head = Head.of(folder)
    expected = sum(
        len(e.values) for n in range(9) for e in trial_events(head, load_trial(trial_path(folder, n))) if e.kind == "metrics"
    )
    parents = {run.info.run_id for run in runs(project, "study")}
    found = [point for point in points(project) if point[0] not in parents]
    assert len(parents) == 1 and len(found) == len(set(found)) == expected
    assert len(points(project)) == len(set(points(project)))
    assert runs(project, "study")[0].info.status == "FINISHED"


def cut_short_after(left, name):
    import mlflow

    return cut_short(left, getattr(mlflow.MlflowClient, name))


def cut_short(left, real):
    """The call is carried out, and then the process "dies", once `left` calls have been made."""

    def call(*arguments, **named):
        done = real(*arguments, **named)
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return done

    return call


SEND = """
import sys, time
from pathlib import Path
from pipelines.search.record import send_study
from pipelines.tracking import bulk, family
family.A_BATCH = 2
if sys.argv[2] == "slowly":
    real = bulk.insert
    def insert(*arguments):
        real(*arguments)
        print("sent", flush=True)
        time.sleep(0.05)
    bulk.insert = insert
print(send_study(Path(sys.argv[1]), project=Path(sys.argv[1]).parents[1], final=True), flush=True)
"""


def sender(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", SEND, str(folder), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_sender_that_was_killed_and_two_at_once_after_it_leave_each_trial_once(project):
    folder = make(project, 20, epochs=3)
    first = sender(folder, "slowly")
    assert first.stdout.readline() == "sent\n" == first.stdout.readline()
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    assert 4 <= len(runs(project, "trial")) < 20
    both = [sender(folder, "quickly") for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert {out for out, _ in said} == {f"{runs(project, 'study')[0].info.run_id}\n"}, said
    assert len(runs(project, "trial")) == 20
    assert len(points(project)) == len(set(points(project)))


def test_it_ends_between_two_batches_when_it_is_told_to_and_goes_on_at_the_next_call(project, road):
    folder = make(project, 9, epochs=2)
    asked = iter([False, True, True, True])
    send_study(folder, project=project, stop=lambda: next(asked))
    assert len(runs(project, "trial")) == 3
    assert [name for name, _ in send_waiting_studies(project)] == ["studies/s"]
    assert len(runs(project, "trial")) == 9


def test_before_the_first_trial_ended_or_with_tracking_off_nothing_is_sent(project):
    folder = make(project, 3, epochs=2)
    trial_path(folder, 0).unlink()
    assert send_study(folder, project=project) is None
    off = make(project, 3, epochs=2, name="off", experiment=spec(tracking={"enabled": False}))
    assert send_study(off, project=project, final=True) is None
    (folder / "study.json").unlink()
    assert send_study(folder, project=project) is None
    assert runs(project, "study") == [] and list(send_waiting_studies(project)) == []


# When the store fails, and secrets -------------------------------------------------------------------------------------


def test_a_store_that_fails_is_said_once_and_the_next_sync_sends_all(project, monkeypatch, capfd):
    folder = make(project, 5, epochs=2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        monkeypatch.context() as patch,
        pytest.raises(TrackingError, match=r"'s' is not wholly on record.*next `deltarule sync`"),
    ):
        patch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{port}")
        send_study(folder, project=project, final=True)
    [(name, run_id)] = send_waiting_studies(project)
    assert name == "studies/s" and client_of(project).get_run(run_id).info.status == "FINISHED"
    assert list(send_waiting_studies(project)) == []
    assert capfd.readouterr().err == ""


def test_a_database_that_fails_in_the_middle_keeps_whole_batches_alone_and_says_so_once(project, monkeypatch, capfd):
    monkeypatch.setattr(family, "A_BATCH", 3)
    folder = make(project, 9, epochs=2)
    real, calls = bulk._add, []

    def failing(rows, child, *more):
        calls.append(child.number)
        real(rows, child, *more)
        if child.number == 4:
            rows["metrics"].append(dict(rows["metrics"][-1]))  # the same key twice: the database refuses it

    with monkeypatch.context() as patch, pytest.raises(TrackingError, match="not wholly on record"):
        patch.setattr(bulk, "_add", failing)
        send_study(folder, project=project)
    assert calls == [0, 1, 2, 3, 4, 5] and len(runs(project, "trial")) == 3
    send_study(folder, project=project, final=True)
    assert len(runs(project, "trial")) == 9 and len(points(project)) == len(set(points(project)))
    assert capfd.readouterr().err == ""


def test_a_study_that_was_killed_before_it_could_be_sent_is_sent_as_interrupted(project):
    make(project, 4, epochs=2)
    assert len(list(send_waiting_studies(project))) == 1
    assert runs(project, "study")[0].info.status == "KILLED"


def test_tables_that_are_not_known_are_not_written_to_directly(project, monkeypatch):
    monkeypatch.setitem(direct.TABLES, "metrics", direct.TABLES["metrics"] + " workspace")
    monkeypatch.delattr(direct.Client, "insert")
    folder = make(project, 3, epochs=2)
    send_study(folder, project=project, final=True)
    assert len(runs(project, "trial")) == 3


@pytest.mark.parametrize("way", ["a database at once", "one by one"])
def test_no_password_of_the_studys_storage_reaches_the_record(project, monkeypatch, way):
    if way == "one by one":
        monkeypatch.setattr(direct, "known", lambda database: False)
    planted = spec(search={"storage": f"postgresql+psycopg://me:{SECRET}@host/studies"})
    folder = make(project, 3, epochs=2, experiment=planted)
    kept = json.loads((folder / "study.json").read_text())
    kept["identity"]["storage"] = f"postgresql://me:{SECRET}@host/x"
    (folder / "study.json").write_text(json.dumps(kept))
    text = trial_path(folder, 1).read_text()
    trial_path(folder, 1).write_text(text.replace('"reason": "', f'"reason": "could not reach http://a:{SECRET}@b; '))
    (folder / "winner.yaml").write_text(f"data.source: https://me:{SECRET}@host/rows.csv\n")
    (folder / "trials.csv").write_text(f"number,source\n0,https://me:{SECRET}@host/rows.csv\n")
    assert SECRET in (folder / "params.yaml").read_text()
    run_id = send_study(folder, project=project, final=True)
    stored = [p for p in (project / ".mlflow").rglob("*") if p.is_file()]
    assert len(stored) >= 5 and [p.name for p in stored if SECRET.encode() in p.read_bytes()] == []
    assert client_of(project).get_run(run_id).data.params["search.storage"] == "postgresql+psycopg://***@host/studies"
    assert "***" in runs(project, "trial")[1].data.tags["deltarule.reason"]


# A server --------------------------------------------------------------------------------------------------------------


@contextmanager
def server(project):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ui = import_module("pipelines.tracking.ui")  # the package hands on its function of that name
    with ui._server(locate(EXPERIMENT.tracking, project), port) as started:
        ui._await(started, port)
        yield f"http://127.0.0.1:{port}"


@pytest.mark.slow
def test_a_server_gets_the_study_and_what_it_missed(project, monkeypatch):
    monkeypatch.setattr(family, "A_BATCH", 3)
    folder = make(project, 7, epochs=3)
    with server(project) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        left = [9]
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            for name in CALLS:
                patch.setattr(f"mlflow.MlflowClient.{name}", cut_short_after(left, name))
            patch.setattr(direct.Client, name, cut_short(left, getattr(direct.Client, name)))
            send_study(folder, project=project)
        run_id = send_study(folder, project=project)
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        make(project, 9, epochs=3)
        assert send_study(folder, project=project, final=True) == run_id  # beside the server, into its database
    assert len(runs(project, "trial")) == 9
    assert len(points(project)) == len(set(points(project)))
    # Where the server put the experiment's artifacts, which is a folder deeper.
    assert {"study.json", "params.yaml"} <= {p.name for p in (project / ".mlflow/artifacts").rglob(f"{run_id}/artifacts/*")}


def test_trials_that_were_read_are_not_read_again(project, monkeypatch):
    folder = make(project, 6, epochs=2)
    send_study(folder, project=project)
    read = []
    monkeypatch.setattr(search_record, "load_trial", lambda path: read.append(path.name) or load_trial(path))
    make(project, 6, epochs=2)  # the same files, written anew
    time.sleep(0.01)
    search_record._light.cache_clear()
    send_study(folder, project=project)
    assert len(read) == 6
    send_study(folder, project=project)
    assert len(read) == 6


def test_a_study_is_put_on_record_without_importing_mlflow(project):
    """Where the database is known and its experiment is there: the import is a tenth of a short study."""
    send_study(make(project, 2, epochs=2), project=project)  # makes the experiment
    folder = make(project, 5, epochs=2, name="later")
    code = """
import sys
from pathlib import Path
from pipelines.search.record import send_study
print(send_study(Path(sys.argv[1]), project=Path(sys.argv[1]).parents[1], final=True))
print(sorted({name.partition(".")[0] for name in sys.modules} & {"mlflow", "sqlalchemy"}))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code, str(folder)], env=environment, capture_output=True, text=True, check=True)
    key, loaded = done.stdout.splitlines()
    assert loaded == "[]" and client_of(project).get_run(key).info.status == "FINISHED"


def test_tables_show_the_front_of_several_metrics_first():
    several, single = study(40, metrics=("loss", "weights")), study(40)
    first = [trial.number for trial in ranked(several)[: len(several.front)]]
    assert sorted(first) == sorted(several.front) and len(first) > 1
    done = [trial.values[0] for trial in ranked(single) if trial.state == "COMPLETE"]
    assert done == sorted(done)
