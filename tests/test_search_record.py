"""A study is on record once, wholly, as one run with its trials inside, in whatever way it was cut short."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import optuna
import pytest
from conftest import call
from stored import client_of, cut_short_after, files, free_port, points, rows
from synthetic_study import SPACE, TRACKING, make, save, spec, study

from pipelines import record
from pipelines.api.pipeline import send_waiting
from pipelines.cli import main
from pipelines.data import DataError
from pipelines.record.sync import deliver
from pipelines.search import records
from pipelines.search.record import StudyJournal, StudyRecorder, study_events, unwritten_studies
from pipelines.search.records import load_study, ranked
from pipelines.search.storage import open_storage
from pipelines.spec import Experiment, flat
from pipelines.tracking import TrackingError, locate, sender, waiting
from pipelines.tracking.events import key_of, killed, merged, params
from pipelines.tracking.journal import Journal, journals, settle
from pipelines.tracking.ui import served

EXPERIMENT = Experiment.model_validate({"tracking": TRACKING})
SECRET = "hunter2"


@pytest.fixture
def project(stored_project):
    return stored_project


def without(made, number):
    """The study while this trial still runs."""
    trials = [replace(one, state="RUNNING", values=()) if one.number == number else one for one in made.trials]
    return replace(made, trials=tuple(trials))


def runs(project, kind):
    client = client_of(project)
    everywhere = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(everywhere, f"tags.`deltarule.kind` = '{kind}'", max_results=5000)
    return sorted(found, key=lambda run: int(run.data.tags.get("deltarule.trial", 0)))


def journal_of(project, folder, how=None):
    """The journal of a study, with all its trials; `how` it ended: "finished", "killed", or not yet."""
    journal = StudyJournal(folder, project, load_study(folder))
    if how == "finished":
        journal.finish()
    elif how == "killed":
        journal.end(killed("interrupted"))
    return journal.journal


def send(project, folder, how=None):
    """Put a study on record; the id of its run."""
    journal = journal_of(project, folder, how)
    with journal.claim() as ours:
        assert ours
        return deliver(journal, locate(EXPERIMENT.tracking, project))


def forget(folder):
    """As if no trial of it had ever been written into a journal."""
    (folder / ".deltarule/record.json").unlink()


# What is on record -----------------------------------------------------------------------------------------------------


def test_a_study_is_a_run_and_its_trials_are_runs_inside_it(project):
    run_id = send(project, make(project, 20, epochs=4), "finished")
    [parent], children = runs(project, "study"), runs(project, "trial")
    assert (parent.info.run_id, parent.info.run_name, parent.info.status) == (run_id, "s", "FINISHED")
    assert [child.data.tags["deltarule.trial"] for child in children] == [str(n) for n in range(20)]
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {run_id}
    assert {child.data.tags["deltarule.study"] for child in [parent, *children]} == {"s"}
    assert {child.data.tags["deltarule.origin"] for child in [parent, *children]} == {"search"}
    assert parent.data.tags["mlflow.user"] == children[3].data.tags["mlflow.user"]
    begun = [child.info.start_time for child in children]
    assert begun == sorted(set(begun)) and journals(project) == []


def test_trials_have_the_status_that_is_nearest_and_keep_optunas_word(project):
    folder = make(project, 40, epochs=4)
    send(project, folder)
    trials, children = load_study(folder).trials, runs(project, "trial")
    assert [c.data.tags["deltarule.state"] for c in children] == [t.state for t in trials]
    statuses = {(c.data.tags["deltarule.state"], c.info.status) for c in children}
    assert statuses == {("COMPLETE", "FINISHED"), ("PRUNED", "KILLED"), ("FAIL", "FAILED")}
    assert [c.data.tags["deltarule.reason"] for c in children] == [t.reason for t in trials]


def test_a_trial_carries_what_was_drawn_the_curve_of_what_is_searched_and_its_best_epoch(project):
    folder = make(project, 8, epochs=6)
    run_id = send(project, folder)
    made, client = load_study(folder), client_of(project)
    shared = client.get_run(run_id).data.params
    for trial, child in zip(made.trials, runs(project, "trial"), strict=True):
        own = child.data.params
        assert own.keys() == {"seed", "regularization.l1 or", *SPACE} and not own.keys() & (shared.keys() - {"seed"})
        resolved = flat(made.spec.override(dict(trial.changes)))
        assert {key: own[key] for key in SPACE} == {key: texts(resolved[key]) for key in SPACE}
        assert own["regularization.l1 or"] == texts(trial.params["regularization.l1 or"])
        history = {p.step: p.value for p in client.get_metric_history(child.info.run_id, "val/loss")}
        assert history == {row["epoch"]: row["val_loss"] for row in trial.history if math.isfinite(row["val_loss"])} | {
            row["epoch"]: 1.7976931348623157e308 for row in trial.history if row["val_loss"] == math.inf
        }
        assert "val/accuracy" not in child.data.metrics and "train/loss" not in child.data.metrics
        best = next((row for row in trial.history if row["epoch"] == trial.best_epoch), None)
        assert child.data.metrics["best_val_accuracy"] == best["val_accuracy"]
        assert child.data.metrics.get("value") == (trial.values[0] if trial.values else None)
        assert child.data.metrics["weights"] == trial.weights
        assert child.data.tags["deltarule.steps"] == str(trial.steps)


def texts(value):
    return value if isinstance(value, str) else json.dumps(value)


def test_a_trial_that_took_over_what_an_equal_one_came_to_says_of_which(project):
    made, folder = study(4), make(project, 4)
    taken = replace(made.trials[1], number=3, same_as=1, epochs=0)
    save(folder, replace(made, trials=(*made.trials[:3], taken)))
    send(project, folder, "finished")
    assert [run.data.tags.get("deltarule.same_as") for run in runs(project, "trial")] == [None, None, None, "1"]


def test_an_option_of_a_kind_that_was_searched_is_on_the_trials_that_have_it_alone(project):
    space = {"train.optimizer.name": {"choices": ["sgd", "adam"]}}
    spec_of = spec(search={"space": space}, train={"optimizer": {"name": "sgd"}})
    made, names = study(2, epochs=2, experiment=spec_of), [{"train.optimizer.name": name} for name in ("sgd", "adam")]
    trials = tuple(replace(one, params=name, changes=name) for one, name in zip(made.trials, names, strict=True))
    folder = project / "studies/s"
    save(folder, replace(made, trials=trials))
    run_id = send(project, folder)
    sgd, adam = (run.data.params for run in runs(project, "trial"))
    assert "train.optimizer.momentum" in sgd and "train.optimizer.momentum" not in adam and "train.optimizer.beta1" in adam
    assert "train.optimizer.momentum" not in client_of(project).get_run(run_id).data.params


def test_columns_of_any_name_and_values_of_any_length_go_on_record_under_the_names_that_a_run_has(project):
    columns = {"weight (kg)": "numeric", "a%": "ignore"}
    data = {"source": "rows.csv", "target": "y", "columns": columns, "missing": {"markers": [f"none {n}" for n in range(700)]}}
    run_id = send(project, make(project, 2, epochs=2, experiment=spec(data=data)), "finished")
    params = client_of(project).get_run(run_id).data.params
    found = {key_of(name): value for name, value in params.items()}
    assert (found["data.columns.weight (kg)"], found["data.columns.a%"]) == ("numeric", "ignore")
    markers = params["data.missing.markers"]
    assert len(markers) == 6000 and markers.endswith("(cut, the whole is in params.yaml)")


def test_the_parent_shows_what_was_best_after_how_many_trials(project):
    folder = make(project, 24, epochs=4)
    run_id = send(project, folder, "finished")
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
    drawn = {key: value for key, value in run.data.tags.items() if key.startswith("deltarule.best.") and value}
    assert drawn == {f"deltarule.best.{path}": texts(value) for path, value in winner.params.items()}
    assert run.data.params["search.space.model.dropout.high"] == "0.6" and run.data.params["train.epochs"] == "30"
    assert {"params.yaml", "study.json", "trials.csv", "winner.yaml"} <= files(project, run_id).keys()


def test_tags_of_the_spec_stand_on_the_study(project):
    folder = make(project, 1, epochs=1, experiment=spec(tracking={"tags": {"team": "blue"}}))
    assert merged(study_events(load_study(folder), folder, ""), "tags")["team"] == "blue"


def test_of_several_metrics_each_has_its_best_and_there_is_no_winner(project):
    folder = make(project, 20, epochs=4, metrics=("accuracy", "weights"))
    run = client_of(project).get_run(send(project, folder, "finished"))
    done = [t for t in load_study(folder).trials if t.values]
    assert run.data.metrics["best_value_accuracy"] == max(t.values[0] for t in done)
    assert run.data.metrics["best_value_weights"] == min(t.values[1] for t in done)
    assert "best_trial" not in run.data.metrics
    assert runs(project, "trial")[0].data.metrics["value_weights"] == done[0].values[1]


def test_of_several_seeds_the_means_and_their_spread_are_kept(project):
    folder = make(project, 3, epochs=4, seeds=3, experiment=spec(search={"seeds": 3}))
    send(project, folder)
    trial, child = load_study(folder).trials[0], runs(project, "trial")[0]
    assert child.data.metrics["value_spread"] == trial.spread[0]
    assert child.data.metrics["best_val_loss"] == child.data.metrics["value"] == trial.values[0]
    assert "best_epoch" not in child.data.metrics and child.data.tags["deltarule.seeds"] == "3"


def test_a_column_with_brackets_and_a_long_value_are_on_record_by_the_rules_of_runs(project):
    columns = {"weight (kg)": "numeric", "weight [kg]": "numeric", "a/../b": "categorical"}
    made = spec(data={"source": "table.csv", "target": "kind", "columns": columns}, model={"hidden": [1] * 3000})
    run_id = send(project, make(project, 2, epochs=2, experiment=made), "finished")
    expected = params(flat(made.drawn({**load_study(project / "studies/s").trials[1].changes, "seed": 0})))
    shared, own = client_of(project).get_run(run_id).data.params, runs(project, "trial")[1].data.params
    there = {**shared, **own}
    names = [name for name in expected if not name.startswith(("search.", "tracking."))]
    assert {name: there.get(name) for name in names} == {name: expected[name] for name in names}
    assert {f"data.columns.{name}" for name in columns} <= {key_of(name) for name in shared}
    assert len(shared["model.hidden"]) == 6000 and shared["model.hidden"].endswith("(cut, the whole is in params.yaml)")
    assert waiting(project) == [] and len(runs(project, "trial")) == 2


def test_figures_are_kept_where_they_are(project):
    folder = make(project, 3, epochs=2)
    (folder / "figures").mkdir()
    (folder / "figures/history.png").write_text("drawn")
    assert "figures/history.png" in files(project, send(project, folder, "finished"))


# How it goes on --------------------------------------------------------------------------------------------------------


def test_a_study_is_running_then_over_and_running_again_when_it_is_topped_up(project):
    folder = make(project, 4, epochs=2)
    status = lambda: runs(project, "study")[0].info.status  # noqa: E731
    send(project, folder)
    assert status() == "RUNNING"
    send(project, folder, "killed")
    assert status() == "KILLED"
    send(project, folder, "finished")
    assert status() == "FINISHED"
    send(project, make(project, 6, epochs=2))
    assert status() == "RUNNING" and len(runs(project, "trial")) == 6


def test_a_study_of_which_no_trial_completed_failed(project):
    folder = make(project, 1, epochs=2)
    save(folder, replace(load_study(folder), trials=(replace(study(16, epochs=2).trials[7], number=0),)))
    send(project, folder, "finished")
    assert runs(project, "study")[0].info.status == "FAILED"


@pytest.mark.parametrize("known", [True, False])
def test_sending_again_adds_nothing(project, known):
    folder = make(project, 10, epochs=4)
    run_id = send(project, folder, "finished")
    before = sorted(points(project)), {p: f.stat().st_mtime_ns for p, f in files(project, run_id).items()}
    if not known:
        forget(folder)
    assert send(project, folder, "finished") == run_id and len(runs(project, "trial")) == 10
    assert (sorted(points(project)), {p: f.stat().st_mtime_ns for p, f in files(project, run_id).items()}) == before


def test_trials_that_end_out_of_order_are_all_sent_and_what_was_best_waits_for_the_missing(project):
    folder = make(project, 9, epochs=2)
    whole = load_study(folder)
    save(folder, without(whole, 4))
    run_id = send(project, folder, "killed")
    assert len(runs(project, "trial")) == 8
    assert max(p.step for p in client_of(project).get_metric_history(run_id, "best_value")) == 4
    save(folder, whole)
    send(project, folder, "finished")
    assert len(runs(project, "trial")) == 9 and len(points(project)) == len(set(points(project)))
    assert [p.step for p in client_of(project).get_metric_history(run_id, "best_value")] == list(range(1, 10))


def test_another_study_of_the_same_name_is_a_run_of_its_own(project):
    first = send(project, make(project, 2, epochs=2))
    shutil.rmtree(project / "studies")
    assert send(project, make(project, 2, epochs=2)) == first  # the same numbers: the same study
    shutil.rmtree(project / "studies")
    shutil.rmtree(project / ".deltarule/log")
    assert send(project, make(project, 2, epochs=2, seed=1)) != first


def test_a_trial_that_another_program_put_into_the_queue_is_shown_as_one_that_runs(project):
    folder = make(project, 2, epochs=2)
    optuna.load_study(study_name="s", storage=open_storage(folder, None)).enqueue_trial({"model.dropout": 0.1})
    last = load_study(folder).trials[-1]
    assert (last.number, last.state, last.params, last.changes) == (2, "RUNNING", {}, {})


CALLS = ("create_run", "log_batch", "log_artifacts", "update_run")


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 5, 8, 13, 22])
def test_cut_short_anywhere_the_next_sending_completes_it_and_no_point_is_kept_twice(project, monkeypatch, calls):
    monkeypatch.setattr(sender, "EVENTS_A_PASS", 15)
    monkeypatch.setattr(sender, "METRICS_A_CALL", 4)
    folder = make(project, 9, epochs=3)
    left = [calls]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        for name in CALLS:
            patch.setattr(f"mlflow.MlflowClient.{name}", cut_short_after(left, name))
        send(project, folder)
    told = [event for event in journals(project)[0].read() if event.child and event.kind == "metrics"]
    expected = sum(len(event.values) for event in told)
    send(project, folder, "finished")
    children = runs(project, "trial")
    assert [int(child.data.tags["deltarule.trial"]) for child in children] == list(range(9))
    assert {child.info.status for child in children} <= {"FINISHED", "FAILED", "KILLED"}
    ids = {child.info.run_id for child in children}
    assert sum(point[0] in ids for point in points(project)) == expected
    assert len(points(project)) == len(set(points(project)))
    assert [run.info.status for run in runs(project, "study")] == ["FINISHED"]


SEND = """
import sys, time
from pathlib import Path
from pipelines.api.pipeline import send_waiting
from pipelines.spec import Tracking
from pipelines.tracking import sender
sender.EVENTS_A_PASS = 10
real = sender.Sender._send_children
def sending(*arguments):
    real(*arguments)
    print("sent", flush=True)
    time.sleep(float(sys.argv[2]))
sender.Sender._send_children = sending
print(dict(send_waiting(Path(sys.argv[1]), Tracking(experiment="tests"))), flush=True)
"""


def sending(project, seconds):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", SEND, str(project), str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_sender_that_was_killed_and_two_at_once_after_it_leave_each_trial_once(project):
    journal_of(project, make(project, 20, epochs=3), "finished")
    first = sending(project, 0.05)
    while len(runs(project, "trial")) < 4:
        assert first.poll() is None, first.communicate()
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    assert 4 <= len(runs(project, "trial")) < 20
    both = [sending(project, 0) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(runs(project, "study")) == 1 and len(runs(project, "trial")) == 20
    assert len(points(project)) == len(set(points(project)))


# While it goes on ------------------------------------------------------------------------------------------------------


def test_a_driver_only_writes_a_journal_and_another_process_sends_it(project):
    folder = make(project, 6, epochs=2)
    whole = load_study(folder)
    with StudyRecorder(folder, project, replace(whole, trials=())) as recorder:
        for number in (1, 0, 2, 3, 5, 4):
            recorder.trial_ended(whole.trials[number])
        recorder.finish()
    assert recorder.warning == ""
    settle(project)
    [parent] = runs(project, "study")
    assert parent.info.status == "FINISHED" and len(runs(project, "trial")) == 6
    assert parent.data.metrics["trials_complete"] == whole.counts()["COMPLETE"]


@pytest.mark.parametrize("known", [2, 4], ids=["the journal knew of the third alone", "the storage knew of the fourth alone"])
def test_a_driver_that_is_killed_goes_on_in_its_journal_and_tells_what_it_could_not(project, monkeypatch, known):
    monkeypatch.setattr("pipelines.search.record.Uploader", NoUploader)
    folder = make(project, 6, epochs=2)
    whole = load_study(folder)
    killed_one = StudyRecorder(folder, project, replace(whole, trials=()))
    for trial in whole.trials[:3]:
        killed_one.trial_ended(trial)
    with StudyRecorder(folder, project, replace(whole, trials=whole.trials[:known])) as recorder:
        for trial in whole.trials[2:]:  # the third is carried out again
            recorder.trial_ended(trial)
        recorder.finish()
    [journal] = journals(project)
    told = [event.child for event in journal.read() if event.child and event.kind == "end"]
    assert told == [str(number) for number in range(6)]
    assert [one.run for one in waiting(project)] == ["studies/s"]
    assert len(list(send_waiting(project, EXPERIMENT.tracking))) == 1
    assert len(runs(project, "trial")) == 6 and len(points(project)) == len(set(points(project)))
    [run] = runs(project, "study")
    assert [p.step for p in client_of(project).get_metric_history(run.info.run_id, "best_value")] == list(range(1, 7))
    assert run.data.tags["deltarule.trials.complete"] == str(sum(one.state == "COMPLETE" for one in whole.trials))


def test_a_journal_that_is_still_being_sent_goes_on_and_no_second_one_is_sent_beside_it(project, monkeypatch):
    monkeypatch.setattr("pipelines.search.record._CLAIM_SECONDS", 0.1)
    folder = make(project, 4, epochs=2)
    whole = load_study(folder)
    save(folder, without(whole, 3))
    first = journal_of(project, folder, "killed")
    with first.claim() as ours:
        assert ours
        save(folder, whole)
        assert journal_of(project, folder, "finished").id == first.id
    assert [journal.id for journal in journals(project)] == [first.id]
    list(send_waiting(project, EXPERIMENT.tracking))
    [run] = runs(project, "study")
    assert (run.info.status, run.data.tags["deltarule.trials.complete"]) == ("FINISHED", "4")
    assert len(runs(project, "trial")) == 4 and len(points(project)) == len(set(points(project)))


class NoUploader:
    """In the place of the process that sends."""

    def __init__(self, journal, *_):
        self.journal = journal

    def close(self):
        return ""


def test_before_the_first_trial_ended_or_with_tracking_off_nothing_is_written(project, monkeypatch):
    monkeypatch.setattr("pipelines.search.record.Uploader", NoUploader)
    folder = make(project, 3, epochs=2)
    whole = load_study(folder)
    with StudyRecorder(folder, project, replace(whole, trials=())) as recorder:
        recorder.trial_ended(whole.trials[1])
    save(folder, without(whole, 0))
    off = make(project, 3, epochs=2, name="off", experiment=spec(tracking={"enabled": False}))
    with StudyRecorder(off, project, load_study(off)):
        pass
    assert journals(project) == [] and unwritten_studies(project) == []


def test_a_journal_that_cannot_be_written_ends_no_study(project, monkeypatch):
    monkeypatch.setattr("pipelines.search.record.Uploader", NoUploader)
    whole = load_study(make(project, 3, epochs=2))
    (project / ".deltarule").write_text("no folder")
    with StudyRecorder(project / "studies/s", project, whole) as recorder:
        recorder.finish()
    assert "could not be written" in recorder.warning


@pytest.mark.parametrize("total", [6, 64])
def test_trials_that_the_journal_could_not_take_are_put_on_record_by_sync(project, monkeypatch, total):
    monkeypatch.setattr("pipelines.search.record.Uploader", NoUploader)
    folder = make(project, 6, epochs=2, experiment=spec(search={"trials": total}))
    whole = load_study(folder)
    with StudyRecorder(folder, project, replace(whole, trials=())) as recorder:
        for trial in whole.trials[:3]:
            recorder.trial_ended(trial)
        with monkeypatch.context() as patched:
            patched.setattr(Journal, "append", full)
            for trial in whole.trials[3:]:
                recorder.trial_ended(trial)
            recorder.finish()
    assert "no space" in recorder.warning and "`deltarule sync`" in recorder.warning
    assert unwritten_studies(project) == ["studies/s"]
    list(send_waiting(project, EXPERIMENT.tracking))
    assert len(runs(project, "trial")) == 6 and len(points(project)) == len(set(points(project)))
    assert [run.info.status for run in runs(project, "study")] == ["FINISHED" if total == 6 else "KILLED"]
    assert unwritten_studies(project) == [] == journals(project)


def full(*_):
    raise OSError("no space left on device")


# When the store fails, and secrets -------------------------------------------------------------------------------------


def test_a_store_that_fails_is_said_once_and_the_next_sync_sends_all(project, monkeypatch, capfd):
    folder = make(project, 5, epochs=2)
    port = free_port()
    with (
        monkeypatch.context() as patch,
        pytest.raises(TrackingError, match=r"'s' is not wholly on record.*next `deltarule sync`"),
    ):
        patch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{port}")
        journal_of(project, folder, "finished")
        list(send_waiting(project, EXPERIMENT.tracking))
    [(name, run_id)] = send_waiting(project, EXPERIMENT.tracking, here=True)
    assert name == "studies/s" and client_of(project).get_run(run_id).info.status == "FINISHED"
    assert list(send_waiting(project, EXPERIMENT.tracking)) == []
    assert capfd.readouterr().err == ""


def test_a_study_that_its_store_lost_is_sent_once_more(project):
    """Its store is wiped."""

    def sync():
        return call("deltarule", "sync", cwd=project).stdout  # in a process of its own: MLflow keeps databases open

    def on_record():
        return sorted((run["name"], run["status"], run["lifecycle_stage"]) for run in rows(project, "runs"))

    (project / "params.yaml").write_text("tracking: {experiment: tests}\n")
    send(project, make(project, 3, epochs=2, experiment=spec(search={"trials": 3})), "finished")
    wanted = on_record()
    assert len(wanted) == 4 and "there is nothing to put on record" in sync()
    shutil.rmtree(project / ".mlflow")
    assert "studies/s: on record" in sync() and on_record() == wanted
    assert "there is nothing to put on record" in sync() and on_record() == wanted


def test_what_another_process_is_sending_is_said_to_be_on_its_way(project, monkeypatch, capfd):
    journal_of(project, make(project, 3, epochs=2), "finished")
    [journal] = journals(project)
    with journal.claim() as ours:
        assert ours
        waits = partial(record.sync.send_waiting, seconds=0.1)
        assert list(waits(project, EXPERIMENT.tracking)) == [("studies/s", None)]
        monkeypatch.setattr("pipelines.api.pipeline.record.send_waiting", waits)
        monkeypatch.chdir(project)
        Path("params.yaml").write_text("{}\n")
        with pytest.raises(SystemExit) as ended:
            main(["sync"])
    assert (
        ended.value.code == 0 and "studies/s: another process is sending it; `deltarule sync --status`" in capfd.readouterr().out
    )


@pytest.mark.parametrize(("note", "status"), [(None, "KILLED"), ("KILLED", "KILLED"), ("FINISHED", "FINISHED")])
def test_a_study_of_an_earlier_version_that_waits_is_sent_from_its_files(project, note, status):
    folder = make(project, 4, epochs=2)
    if note:
        (folder / ".deltarule").mkdir(exist_ok=True)
        (folder / ".deltarule/record.json").write_text(json.dumps({"status": note, "sent": ""}))
    assert unwritten_studies(project) == ["studies/s"]
    assert [name for name, _ in send_waiting(project, EXPERIMENT.tracking)] == ["studies/s"]
    assert runs(project, "study")[0].info.status == status and len(runs(project, "trial")) == 4
    assert list(send_waiting(project, EXPERIMENT.tracking)) == []


@pytest.mark.parametrize("damage", ["null", "[]", '{"trials": null}', '{"trials": 3}', '{"trials": [[0]]}', '{"trials": "0"}'])
def test_a_study_whose_note_is_damaged_is_on_record_once(project, damage):
    folder = make(project, 3, epochs=2)
    send(project, folder, "finished")
    (folder / ".deltarule/record.json").write_text(damage)
    assert unwritten_studies(project) == ["studies/s"]
    assert [name for name, _ in send_waiting(project, EXPERIMENT.tracking)] == ["studies/s"]
    assert len(runs(project, "study")) == 1 and len(runs(project, "trial")) == 3
    assert list(send_waiting(project, EXPERIMENT.tracking)) == []


@pytest.mark.parametrize("damage", ["{}", '{"bytes": "x", "sha256": ""}', '{"bytes": null, "sha256": null}'])
def test_a_study_whose_seal_is_damaged_is_refused_by_name(project, damage):
    folder = make(project, 2, epochs=2)
    (folder / ".deltarule/trials.json").write_text(damage)
    with pytest.raises(DataError, match="is damaged"):
        load_study(folder)


def test_no_password_of_the_studys_storage_reaches_the_record(project, monkeypatch):
    monkeypatch.setattr(records, "open_storage", lambda folder, url: open_storage(folder, None))
    planted = spec(search={"storage": f"postgresql+psycopg://{SECRET}@host/studies"})
    folder = make(project, 3, epochs=2, experiment=planted)
    made = load_study(folder)
    said = replace(made.trials[1], reason=f"could not reach http://a:{SECRET}@b; {made.trials[1].reason}")
    save(folder, replace(made, trials=(made.trials[0], said, made.trials[2])))
    kept = json.loads((folder / "study.json").read_text())
    kept["identity"]["storage"] = f"postgresql://me:{SECRET}@host/x"
    del kept["digest"]
    (folder / "study.json").write_text(json.dumps(kept))
    (folder / "winner.yaml").write_text(f"data.source: https://me:{SECRET}@host/rows.csv\n")
    (folder / "trials.csv").write_text(f"number,source\n0,https://me:{SECRET}@host/rows.csv\n")
    assert SECRET in (folder / "params.yaml").read_text()
    run_id = send(project, folder, "finished")
    stored = [p for p in (project / ".mlflow").rglob("*") if p.is_file()]
    assert len(stored) >= 5 and [p.name for p in stored if SECRET.encode() in p.read_bytes()] == []
    assert client_of(project).get_run(run_id).data.params["search.storage"] == "postgresql+psycopg://***@host/studies"
    assert "***" in runs(project, "trial")[1].data.tags["deltarule.reason"]


# A server --------------------------------------------------------------------------------------------------------------


@contextmanager
def server(project):
    port = free_port()
    with served(locate(EXPERIMENT.tracking, project), port):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.slow
def test_a_server_gets_the_study_and_what_it_missed(project, monkeypatch):
    monkeypatch.setattr(sender, "EVENTS_A_PASS", 15)
    folder = make(project, 7, epochs=3)
    with server(project) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        left = [9]
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            for name in CALLS:
                patch.setattr(f"mlflow.MlflowClient.{name}", cut_short_after(left, name))
            send(project, folder)
        run_id = send(project, folder, "killed")
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        assert send(project, make(project, 9, epochs=3), "finished") == run_id  # beside the server, into its database
    assert len(runs(project, "trial")) == 9
    assert len(points(project)) == len(set(points(project)))
    # Where the server put the experiment's artifacts, which is a folder deeper.
    assert {"study.json", "params.yaml"} <= {p.name for p in (project / ".mlflow/mlartifacts").rglob(f"{run_id}/artifacts/*")}


def test_tables_show_the_front_of_several_metrics_first():
    several, single = study(40, metrics=("loss", "weights")), study(40)
    first = [trial.number for trial in ranked(several)[: len(several.front)]]
    assert sorted(first) == sorted(several.front) and len(first) > 1
    done = [trial.values[0] for trial in ranked(single) if trial.state == "COMPLETE"]
    assert done == sorted(done)
