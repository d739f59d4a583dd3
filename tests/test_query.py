"""Runs are read back as they were put on record, from a database and from a server."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import replace

import pytest
from stored import free_port

from pipelines.spec import Experiment
from pipelines.tracking import TrackingError, locate, store
from pipelines.tracking.query import histories, recorded, texts
from pipelines.tracking.ui import served as serving

TRACKING = Experiment.model_validate({"tracking": {"experiment": "tests"}}).tracking
LOSSES = {1: 0.5, 2: math.nan, 3: math.inf, 4: 0.25}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A store with three runs, a study of two trials, a deleted run and one of another experiment."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    root = tmp_path_factory.mktemp("project")
    store = locate(TRACKING, root)
    store.database.parent.mkdir()
    client = MlflowClient(tracking_uri=store.uri)
    here, elsewhere = (client.create_experiment(name, artifact_location=store.artifacts) for name in ("tests", "others"))
    runs = [client.create_run(here, start_time=1000 * n, run_name=f"run {n}", tags={"n": str(n)}).info.run_id for n in (1, 2, 3)]
    points = [Metric("val_loss", value, 1, step) for step, value in LOSSES.items()]
    points += [Metric("val_loss", 0.75, 2, 1), Metric("odd", -math.inf, 1, 0)]  # a later value of step 1
    client.log_batch(runs[0], metrics=points, params=[Param("model.activation", "relu"), Param("data.target", "")])
    client.log_metric(runs[1], "val/loss", 1.5, step=1)  # as runs have it since 0.2
    client.log_text(runs[0], "fold,loss\n1,0.5\n", "validate/folds.csv")
    client.update_run(runs[0], "FINISHED")
    study = client.create_run(
        here, start_time=4000, run_name="S", tags={"deltarule.kind": "study", "deltarule.study": "S"}
    ).info.run_id
    shared = {"search.trials": "2", "seed": "0", "train.epochs": "30", "model.activation": "relu"}
    client.log_batch(study, params=[Param(key, value) for key, value in shared.items()])
    for n in (5, 6):
        tags = {"mlflow.parentRunId": study, "deltarule.study": "S"}
        trial = client.create_run(here, start_time=1000 * n, run_name=f"S {n}", tags=tags).info.run_id
        client.log_param(trial, "model.activation", "tanh")
    client.delete_run(client.create_run(here, run_name="gone").info.run_id)
    client.create_run(elsewhere, run_name="foreign")
    return root


@pytest.fixture(scope="module")
def served(project):
    """The same store behind `mlflow server`."""
    port = free_port()
    with serving(locate(TRACKING, project), port):
        yield TRACKING.model_copy(update={"uri": f"http://127.0.0.1:{port}"})


def named(runs):
    return [run.name for run in runs]


def comparable(found):
    """NaN is unlike itself."""
    return [replace(run, metrics={name: repr(value) for name, value in run.metrics.items()}) for run in found]


def spelled(found):
    return {
        (run, name, step, repr(value))
        for run, each in found.items()
        for name, curve in each.items()
        for step, value in curve.items()
    }


def test_runs_come_newest_first_without_the_trials_of_studies_the_deleted_and_those_of_other_experiments(project):
    found = recorded(TRACKING, project)
    assert named(found) == ["S", "run 3", "run 2", "run 1"]
    run = found[-1]
    assert (run.status, run.started, run.params["model.activation"], run.tags["n"]) == ("FINISHED", 1.0, "relu", "1")
    assert run.metrics == {"val_loss": 0.25, "odd": -math.inf} and run.parent is None


def test_trials_come_with_their_study_or_with_all(project):
    study = recorded(TRACKING, project)[0]
    assert named(recorded(TRACKING, project, parent=study.id)) == ["S 6", "S 5"]
    assert named(recorded(TRACKING, project, children=True)) == ["S 6", "S 5", "S", "run 3", "run 2", "run 1"]


def test_a_history_has_one_value_a_step_the_last_that_was_written_and_nan_and_infinity_as_they_were(project):
    ids = {run.name: run.id for run in recorded(TRACKING, project)}
    found = histories(TRACKING, project, list(ids.values()), ["val_loss", "no such"])
    assert repr(found[ids["run 1"]]) == repr({"val_loss": {1: 0.75, 2: math.nan, 3: math.inf, 4: 0.25}})
    assert (found[ids["run 2"]], found[ids["run 3"]]) == ({"val_loss": {1: 1.5}}, {})


@pytest.mark.slow
def test_a_server_says_the_same_as_a_database(project, served):
    runs = comparable(recorded(TRACKING, project, children=True))
    ids = [run.id for run in runs]
    assert [run.metrics.get("val_loss") for run in runs[-2:]] == ["1.5", "0.25"]
    curves = spelled(histories(TRACKING, project, ids, ["val_loss", "odd"]))
    assert comparable(recorded(served, project, children=True)) == runs
    study = next(run.id for run in runs if run.name == "S")
    assert named(recorded(served, project, parent=study)) == ["S 6", "S 5"]
    assert spelled(histories(served, project, ids, ["val_loss", "odd"])) == curves
    assert texts(served, project, runs, "validate/folds.csv") == texts(TRACKING, project, runs, "validate/folds.csv")


def test_files_are_read_from_the_runs_that_have_them(project):
    runs = recorded(TRACKING, project)
    assert list(texts(TRACKING, project, runs, "validate/folds.csv").values()) == ["fold,loss\n1,0.5\n"]


def test_a_trial_has_the_params_that_stand_on_its_study_and_its_own_above_them(project):
    study = recorded(TRACKING, project)[0]
    expected = {"model.activation": "tanh", "seed": "0", "train.epochs": "30"}
    assert [dict(run.params) for run in recorded(TRACKING, project, parent=study.id)] == [expected] * 2
    assert [dict(run.params) for run in recorded(TRACKING, project, children=True)][:2] == [expected] * 2


def test_where_there_is_no_store_and_no_experiment_there_are_no_runs_and_none_is_made(project, tmp_path):
    assert recorded(TRACKING, tmp_path) == [] and list(tmp_path.iterdir()) == []
    assert recorded(TRACKING.model_copy(update={"experiment": "none"}), project) == []


def test_a_store_that_does_not_answer_is_said_and_that_nothing_was_changed(project, tmp_path, monkeypatch):
    nobody = TRACKING.model_copy(update={"uri": f"http://me:hunter2@127.0.0.1:{free_port()}"})
    with pytest.raises(TrackingError, match=r"runs cannot be read: the store http://\*\*\*@.*; nothing was changed"):
        recorded(nobody, tmp_path)
    monkeypatch.setattr(store, "_BUSY_SECONDS", 0.1)
    with sqlite3.connect(locate(TRACKING, project).database, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match=r"runs cannot be read.*database is locked"):
            recorded(TRACKING, project)
        other.execute("ROLLBACK")


def test_a_trial_whose_study_is_gone_is_listed_with_its_own_params(tmp_path):
    from mlflow import MlflowClient

    store = locate(TRACKING, tmp_path)
    store.database.parent.mkdir()
    client = MlflowClient(tracking_uri=store.uri)
    trial = client.create_run(client.create_experiment("tests"), tags={"mlflow.parentRunId": "0" * 32}, run_name="orphan")
    client.log_param(trial.info.run_id, "model.activation", "tanh")
    [found] = recorded(TRACKING, tmp_path, children=True)
    assert found.params == {"model.activation": "tanh"}
