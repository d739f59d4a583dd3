"""A run is on record once, wholly, without secrets; and when the store fails, it is soon said and later mended."""

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
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from urllib.request import urlopen

import pytest
from conftest import BIN, PYTHON, empty_store
from stored import client_of, cut_short_after, files, free_port, points, until
from synthetic_run import make, write_json

from pipelines import cli, tracking
from pipelines.compare.choose import choose
from pipelines.data import DataError
from pipelines.project import project_of
from pipelines.record import events
from pipelines.record.sync import RunSender, sync, write_receipt
from pipelines.redact import redact
from pipelines.spec import Experiment
from pipelines.tracking import Event, TrackingError, locate, query, sender, store
from pipelines.tracking.events import key_of, metric_name, name_of, ungrouped

ROOT = Path(__file__).parents[1]
EXPERIMENT = Experiment.model_validate({"tracking": {"experiment": "tests"}})
STAGES = ("data", "train", "validate", "test")


@pytest.fixture
def project(stored_project):
    return stored_project


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(RunSender, "_pictures", lambda *_: ())


def runs(project):
    client = client_of(project)
    return client.search_runs([e.experiment_id for e in client.search_experiments()])


# What a run carries ----------------------------------------------------------------------------------------------------


def test_a_run_carries_its_spec_its_history_its_results_and_where_it_comes_from(project):
    run_id = sync(make(project), EXPERIMENT)
    run = client_of(project).get_run(run_id)
    params, metrics, tags = run.data.params, run.data.metrics, run.data.tags
    assert (run.info.status, run.info.run_name) == ("FINISHED", "digits relu lightning 3f2a")
    assert run.info.end_time is None  # the outs know no times, and how long the upload took is not the run's
    assert (params["model.hidden"], params["train.optimizer.name"], params["data.target"]) == ("[128, 64]", "adam", "null")
    assert metrics["best_epoch"] == 5 and metrics["validate/accuracy"] == metrics["test/accuracy"] == 0.9
    history = client_of(project).get_metric_history(run_id, "diagnostics/delta_rms/1")
    assert sorted(point.step for point in history) == [1, 2, 3, 4, 5, 6]
    assert [tags[f"deltarule.rows.{part}"] for part in ("train", "valid", "test")] == ["60", "20", "20"]
    assert not [name for name in metrics if name.startswith("rows") or name.endswith(("_low", "_high"))]
    assert tags["deltarule.fingerprint"].startswith("3f2a") and tags["deltarule.version.torch"] == "2.13.0"
    assert (tags["deltarule.data"], tags["deltarule.data.train"], tags["deltarule.task"]) == ("digits", "aa11", "multiclass")
    kept = files(project, run_id)
    assert {"params.yaml", "train/model.safetensors", "train/history.csv", "test/metrics.json"} <= kept.keys()
    assert {"figures/learning_curves.png", "figures/test_confusion.png", "figures/gradient_flow.png"} <= kept.keys()
    assert f"run digits relu lightning 3f2a ({run_id[:8]})" in kept["report.html"].read_text()


@pytest.mark.parametrize("of", ["Outs", "run_page"])
def test_a_run_whose_outs_cannot_be_drawn_is_on_record_all_the_same(of, project, monkeypatch):
    def damaged(*_, **__):
        raise DataError("validate/about.json is damaged")

    monkeypatch.setattr(f"pipelines.record.sync.{of}", damaged)
    run = client_of(project).get_run(sync(make(project), EXPERIMENT))
    assert run.info.status == "FINISHED" and run.data.metrics["validate/accuracy"] == 0.9
    assert "DataError: validate/about.json is damaged" in run.data.tags["deltarule.not_drawn"]


def test_best_values_come_from_the_best_epoch(project, no_figures):
    run = client_of(project).get_run(sync(make(project), EXPERIMENT))
    history = {p.step: p.value for p in client_of(project).get_metric_history(run.info.run_id, "val/loss")}
    assert run.data.metrics["best_val_loss"] == history[5] != history[6]


def test_the_resolved_spec_of_a_run_can_be_run_again(project, no_figures):
    from pipelines.spec import load

    spec = Experiment.model_validate({"model": {"hidden": [7, 3], "dropout": [0.1, 0.2]}, "search": {"space": {}}})
    run_id = sync(make(project, spec=spec), EXPERIMENT)
    assert load(files(project, run_id)["params.yaml"]) == spec


def test_a_run_in_a_git_repository_names_its_commit_and_whether_files_differ(project, no_figures):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=project, check=True, capture_output=True, text=True
        ).stdout.strip()

    for name in ("params.yaml", "dvc.lock"):
        (project / name).write_text("1")
    git("init", "-q")
    git("add", "params.yaml", "dvc.lock")
    git("commit", "-q", "-m", "first")
    (project / "dvc.lock").write_text("2")  # which the pipeline itself rewrites
    tags = client_of(project).get_run(sync(make(project), EXPERIMENT)).data.tags
    assert (tags["mlflow.source.git.commit"], tags["mlflow.source.git.dirty"]) == (git("rev-parse", "HEAD"), "false")
    (project / "params.yaml").write_text("2")
    tags = client_of(project).get_run(sync(make(project, fingerprint="ab" * 16), EXPERIMENT)).data.tags
    assert tags["mlflow.source.git.dirty"] == "true"


def test_a_run_that_diverged_is_failed_with_its_reason_and_its_points(project, no_figures):
    run_id = sync(make(project, ended="diverged", diverged_at=3), EXPERIMENT)
    run = client_of(project).get_run(run_id)
    assert run.info.status == "FAILED"
    assert "NaN" in run.data.tags["deltarule.message"]
    losses = {p.step: p.value for p in client_of(project).get_metric_history(run_id, "train/loss")}
    assert math.isnan(losses[3]) and losses[2] > 0
    assert run.data.metrics["best_epoch"] == 2


def test_tags_of_a_dvc_experiment_are_kept(project, no_figures, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "wavy-moth")
    monkeypatch.setenv("DVC_STAGE", "record")
    run = client_of(project).get_run(sync(make(project), EXPERIMENT, name="my run"))
    assert (run.data.tags["deltarule.dvc_exp_name"], run.data.tags["deltarule.dvc_stage"]) == ("wavy-moth", "record")
    assert run.info.run_name == "my run"


def test_events_are_plain_data(project):
    found = events(make(project))
    again = [Event(**json.loads(json.dumps(asdict(event)))) for event in found]
    assert again == found
    assert (found[0].kind, found[-1].kind) == ("tags", "end")


# Once ------------------------------------------------------------------------------------------------------------------


NAMES = ["plain", "weight (kg)", "weight [kg]", "a/b", "a/../b", "/a", "a//b", "a_x28_b", "_x_x28_", "größe 1.0:2"]


def test_names_on_record_lead_back_to_their_keys_and_mlflow_takes_them():
    from mlflow.utils.validation import _validate_param_name

    for key in NAMES:
        _validate_param_name(name_of(key))
        assert key_of(name_of(key)) == key
    assert len({name_of(key) for key in NAMES}) == len(NAMES) and name_of("a/b.c-d e") == "a/b.c-d e"
    assert len(name_of("x" * 300)) == 250 and name_of("x" * 300) != name_of("x" * 301)


METRICS = {
    "train_loss": "train/loss",
    "val_r2.a/b": "val/r2.a/b",
    "validate_rmse.size (cm)": "validate/rmse.size _x28_cm_x29_",
    "test_openings": "test/openings",
    "delta_rms_12": "diagnostics/delta_rms/12",
    "dead_1": "diagnostics/dead/1",
    "best_val_loss": "best_val_loss",
    "value_test_x": "value_test_x",
    "trials_complete": "trials_complete",
}


def test_metrics_stand_in_groups_in_mlflow_and_lead_back():
    from mlflow.utils.validation import _validate_metric_name

    assert {key: metric_name(key) for key in METRICS} == METRICS
    assert [ungrouped(name) for name in METRICS.values()] == [*map(name_of, METRICS)] == [*map(ungrouped, map(name_of, METRICS))]
    for name in METRICS.values():
        _validate_metric_name(name)


def names_of(project):
    return {name for _, name, _ in points(project)}


@pytest.mark.parametrize("calls", [3, 5, 7])
def test_a_run_that_an_earlier_version_began_keeps_its_names_and_each_point_once(project, no_figures, monkeypatch, calls):
    monkeypatch.setattr(sender, "METRICS_A_CALL", 30)
    places = make(project)
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.tracking.events.grouped", lambda metric: metric)
        patch.setattr("mlflow.MlflowClient.log_batch", cut_short_after([calls], "log_batch"))
        with pytest.raises(KeyboardInterrupt):
            sync(places, EXPERIMENT)
    begun = names_of(project)
    sync(places, EXPERIMENT)
    assert "train_loss" in begun and begun <= names_of(project)
    found = [(ungrouped(name), step) for _, name, step in points(project)]
    assert len(set(found)) == len(found) == sum(len(event.values) for event in events(places) if event.kind == "metrics")
    [run] = query.recorded(EXPERIMENT.tracking, project)
    assert {"train_loss", "val_accuracy", "validate_accuracy", "delta_rms_1", "rows_train"} <= run.metrics.keys()


def test_ends_of_intervals_are_read_from_the_report_where_they_are_named(project, no_figures, monkeypatch, capsys):
    sync(make(project), EXPERIMENT)
    (project / "params.yaml").write_text("tracking: {experiment: tests}\n")
    monkeypatch.chdir(project)
    for words in (["--columns", "test_accuracy_high"], ["--where", "test_accuracy_low > 0.8", "--columns", "test_accuracy_high"]):
        with pytest.raises(SystemExit):
            cli.main(["runs", "--csv", *words])
        assert capsys.readouterr().out == "test_accuracy_high\n0.94\n"
    assert choose(EXPERIMENT.tracking, project, where="test_accuracy_low > 0.9") == []
    [run] = choose(EXPERIMENT.tracking, project)
    assert "test_accuracy_low" not in run.metrics and run.metrics["test_accuracy"] == 0.9


def test_syncing_again_adds_nothing(project):
    places = make(project, epochs=80)  # more points than fit into one batch
    run_id = sync(places, EXPERIMENT)
    before = sorted(points(project)), {p: f.stat().st_mtime_ns for p, f in files(project, run_id).items()}
    assert sync(places, EXPERIMENT) == run_id
    assert (sorted(points(project)), {p: f.stat().st_mtime_ns for p, f in files(project, run_id).items()}) == before
    assert len(points(project)) > sender.METRICS_A_CALL
    assert len(runs(project)) == 1


@pytest.mark.parametrize("calls", range(0, 15, 2))
def test_cut_short_anywhere_the_next_sync_completes_it_and_no_point_is_kept_twice(project, no_figures, monkeypatch, calls):
    monkeypatch.setattr(sender, "METRICS_A_CALL", 30)
    places = make(project, diverged_at=4)  # NaN and inf are points too
    with monkeypatch.context() as patch:
        left = [calls]
        for name in ("log_batch", "log_artifacts", "log_inputs", "update_run"):
            patch.setattr(f"mlflow.MlflowClient.{name}", cut_short_after(left, name))
        with pytest.raises(KeyboardInterrupt):
            sync(places, EXPERIMENT)
    sync(places, EXPERIMENT)
    [run] = runs(project)
    found = [(key, step) for _, key, step, *_ in points(project)]
    assert len(found) == len(set(found)) == sum(len(e.values) for e in events(places) if e.kind == "metrics")
    assert run.info.status == "FINISHED" and run.data.params["seed"] == "0"
    assert all(f"deltarule.recorded.{stage}" in run.data.tags for stage in STAGES)


def test_stages_come_on_record_as_they_are_done(project, no_figures):
    first = sync(make(project, stages=("data", "train")), EXPERIMENT)
    assert "validate/accuracy" not in client_of(project).get_run(first).data.metrics
    assert sync(make(project, stages=("validate", "test")), EXPERIMENT) == first
    assert {"validate/accuracy", "test/accuracy"} <= client_of(project).get_run(first).data.metrics.keys()
    assert len(points(project)) == len(set(points(project)))


def test_a_report_on_another_model_is_not_taken_for_one_of_this_run(project, no_figures):
    make(project, fingerprint="ab" * 16)
    run_id = sync(make(project, stages=("data", "train")), EXPERIMENT)
    assert "validate/accuracy" not in client_of(project).get_run(run_id).data.metrics
    assert "validate/metrics.json" not in files(project, run_id)


def test_nothing_trained_is_said_so(project):
    with pytest.raises(TrackingError, match=r"no run to put on record.*outputs/train/run\.json is missing.*dvc repro"):
        sync(make(project, stages=("data",)), EXPERIMENT)


@pytest.mark.parametrize("value", [0.95, 0.5])
def test_another_test_report_of_the_same_network_updates_its_run(project, no_figures, value):
    places = make(project)
    run_id = sync(places, EXPERIMENT)
    write_json(project / "outputs/test/metrics.json", {"accuracy": value, "loss": 0.3})
    assert sync(places, EXPERIMENT) == run_id
    assert client_of(project).get_run(run_id).data.metrics["test/accuracy"] == value
    assert len(client_of(project).get_metric_history(run_id, "test/loss")) == 1


def test_another_network_of_the_same_fingerprint_is_a_run_of_its_own_for_points_cannot_be_taken_back(project, no_figures):
    first = sync(make(project, epochs=6), EXPERIMENT)
    second = sync(make(project, epochs=4), EXPERIMENT)
    assert first != second
    assert sync(make(project, epochs=6), EXPERIMENT) == first


def test_every_launch_is_a_run_of_its_own_beside_the_pipelines_run(project, no_figures):
    places = make(project)
    ids = [sync(places, EXPERIMENT), sync(places, EXPERIMENT, new_run=True), sync(places, EXPERIMENT, new_run=True)]
    assert len(set(ids)) == 3
    assert sync(places, EXPERIMENT) == ids[0]
    fingerprints = {run.data.tags["deltarule.fingerprint"] for run in runs(project)}
    assert len(fingerprints) == 1


def test_a_launch_that_was_cut_short_is_completed(project, no_figures, monkeypatch):
    places = make(project / "runs/1")
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.log_batch", cut_short_after([2], "log_batch"))
        with pytest.raises(KeyboardInterrupt):
            sync(places, EXPERIMENT, new_run=True)
    sync(places, EXPERIMENT, new_run=True)
    [run] = runs(project)
    assert run.info.status == "FINISHED" and run.data.tags["deltarule.launch"] == "runs/1"


def test_a_given_run_id_stands_above_the_fingerprint(project, no_figures, monkeypatch):
    client = client_of(project)
    given = client.create_run(client.create_experiment("elsewhere", (project / "elsewhere").as_uri())).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    assert sync(make(project), EXPERIMENT) == sync(make(project), EXPERIMENT) == given
    with pytest.raises(TrackingError, match=r"MLFLOW_RUN_ID.*another experiment"):
        sync(make(project, fingerprint="ab" * 16), EXPERIMENT)


SYNC = """
import sys
from pathlib import Path
from pipelines.stages.paths import RunPaths
from pipelines.spec import Experiment
from pipelines.record.sync import sync
experiment = Experiment.model_validate({"tracking": {"experiment": sys.argv[2]}})
print(sync(RunPaths(Path(sys.argv[1])), experiment))
"""


@pytest.mark.slow
def test_eight_processes_at_once_on_a_fresh_store_make_one_database_and_one_run_an_experiment(tmp_path):
    make(tmp_path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [PYTHON, "-c", SYNC, str(tmp_path)]
    started = [
        subprocess.Popen([*command, name], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in ("one", "two") * 4
    ]
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0] * 8, said
    assert {err for _, err in said} == {""}  # nor any chatter
    assert len({out for out, _ in said}) == 2 == len(runs(tmp_path))
    assert len(points(tmp_path)) == len({point[:3] for point in points(tmp_path)})


# Where -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        (None, "P/.mlflow/mlflow.db"),
        ("sqlite:///notes/runs.db", "P/notes/runs.db"),
        ("sqlite:////elsewhere/runs.db", "/elsewhere/runs.db"),
        ("notes/runs.sqlite", "P/notes/runs.sqlite"),
        ("notes", "P/notes/mlflow.db"),
        ("../shared", "shared/mlflow.db"),
    ],
)
def test_relative_places_are_relative_to_the_project(tmp_path, uri, file):
    found = locate(EXPERIMENT.tracking.model_copy(update={"uri": uri}), tmp_path / "P")
    assert found.database == tmp_path / file
    assert found.artifacts == "mlflow-artifacts:/"


def test_a_servers_url_stays_as_it_is(tmp_path):
    found = locate(EXPERIMENT.tracking.model_copy(update={"uri": "https://runs.example.org/x"}), tmp_path)
    assert (found.uri, found.database, found.artifacts) == ("https://runs.example.org/x", None, None)


def test_the_environment_stands_above_the_spec(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    found = locate(EXPERIMENT.tracking.model_copy(update={"uri": "http://server:5000"}), tmp_path)
    assert (found.database, found.experiment) == (tmp_path / "other.db", "another")


def test_a_temporary_copy_of_dvc_records_in_the_repository_it_was_copied_from(tmp_path, project, no_figures, monkeypatch):
    copy = make(project / ".dvc/tmp/exps/tmpx")
    (copy.root / ".dvc").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(project))
    run_id = sync(copy, EXPERIMENT)
    assert not (copy.root / ".mlflow").exists()
    assert "train/history.csv" in files(project, run_id)
    shutil.rmtree(copy.root)
    assert client_of(project).get_run(run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_a_project_that_is_moved_keeps_its_record(project, no_figures, tmp_path):
    first = sync(make(project, stages=("data", "train")), EXPERIMENT)
    moved = project.rename(tmp_path / "really? 50%20off#1")
    ids = first, sync(make(moved, stages=("data", "train"), fingerprint="5" * 32), EXPERIMENT)
    for run_id in ids:
        query.fetch(EXPERIMENT.tracking, moved, run_id, tmp_path / run_id)
        assert (tmp_path / run_id / "train/history.csv").read_bytes() == (moved / "outputs/train/history.csv").read_bytes()
    port, quiet = free_port(), os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [BIN / "mlflow", "ui", "--workers", "1", "--port", str(port)]
    server = subprocess.Popen(command, cwd=moved / ".mlflow", env=quiet, start_new_session=True)
    try:
        served = [until(lambda run_id=run_id: served_history(port, run_id), "its file") for run_id in ids]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert served == [(moved / "outputs/train/history.csv").read_bytes()] * 2
    assert not project.exists()  # nothing is written to the old place
    # MLflow makes an empty folder beside one with a ? in its name.
    assert {path.parents[1] for path in tmp_path.rglob("*.db")} == {moved}


def served_history(port, run_id):
    with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/get-artifact?path=train/history.csv&run_uuid={run_id}") as answer:
        return answer.read()


FOUND = """
import mlflow
[run_id] = mlflow.search_runs().run_id
print(run_id, open(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="train/history.csv")).read())
"""


@pytest.mark.slow
def test_plain_mlflow_finds_the_runs_where_it_looks_by_itself_in_a_project_that_may_be_moved(tmp_path, no_figures):
    (tmp_path / "a project/.dvc").mkdir(parents=True)
    places = make(tmp_path / "a project", stages=("data", "train"))
    history, run_id = places.history.read_text(), sync(places, EXPERIMENT)
    moved = (tmp_path / "a project").rename(tmp_path / "moved")
    quiet = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    assert not any(name in quiet for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"))
    done = subprocess.run([PYTHON, "-c", FOUND], cwd=moved, env=quiet, capture_output=True, text=True, check=True)
    assert done.stdout == f"{run_id} {history}\n"
    command = [BIN / "mlflow", "ui", "--workers", "1", "--port", str(port := free_port())]
    server = subprocess.Popen(command, cwd=moved, env=quiet, start_new_session=True)
    try:
        assert until(lambda: served_history(port, run_id), "its file") == (moved / "outputs/train/history.csv").read_bytes()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    [experiment] = client_of(moved).search_experiments()
    assert experiment.name == "tests" and experiment.tags["mlflow.experimentKind"]
    assert sync(make(moved, stages=("data", "train"), fingerprint="5" * 32), EXPERIMENT) != run_id and len(runs(moved)) == 2


def test_what_lies_where_mlflow_looks_is_left_alone(tmp_path, no_figures):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "mlflow.db").write_text("mine")
    sync(make(tmp_path, stages=("data", "train")), EXPERIMENT)
    assert (tmp_path / "mlflow.db").read_text() == "mine" and not (tmp_path / "mlflow.db").is_symlink()
    sync(make(tmp_path, stages=("data", "train")), Experiment.model_validate({"tracking": {"uri": "other/runs.db"}}))
    assert not (tmp_path / "runs.db").exists()


def test_tags_of_the_spec_stand_on_the_run(project, no_figures):
    tagged = Experiment.model_validate({"tracking": {"experiment": "tests", "tags": {"team": "blue", "cost centre": "7"}}})
    tags = client_of(project).get_run(sync(make(project), tagged)).data.tags
    assert (tags["team"], tags["cost centre"], tags["deltarule.origin"]) == ("blue", "7", "pipeline")


def test_a_folder_of_launches_belongs_to_the_project_round_it(project):
    assert project_of(project / "runs/1") == project


def test_a_store_of_plain_files_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(TrackingError, match=r"tracking.uri must be a database or a server, got file:.*leave it null"):
        locate(EXPERIMENT.tracking.model_copy(update={"uri": "file:///runs"}), tmp_path)


def test_switched_off_it_leaves_no_trace(tmp_path, caplog):
    caplog.set_level("INFO")
    off = Experiment.model_validate({"tracking": {"enabled": False}})
    assert sync(make(tmp_path), off) is None
    assert "tracking is off" in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == ["outputs"]


def test_a_receipt_has_the_hashes_of_what_is_on_record(tmp_path):
    places, path = make(tmp_path), tmp_path / "receipt.json"
    for on_record, stages in ((True, {"train", "validate", "test"}), (False, set())):
        write_receipt(places, path, on_record)
        assert json.loads(path.read_text()).keys() == stages


# Secrets ---------------------------------------------------------------------------------------------------------------

SECRET = "hunter2"


def test_no_secret_reaches_the_store(project, no_figures, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///.mlflow/mlflow.db")
    planted = Experiment.model_validate(
        {
            "data": {"source": f"https://me:{SECRET}@example.org/rows.csv", "target": "y"},
            "tracking": {"uri": f"postgresql://me:{SECRET}/@x@db/runs", "experiment": "tests"},
        }
    )
    places = make(project, spec=planted)
    path = project / "outputs/train/run.json"
    run = json.loads(path.read_text())
    run["message"] = f"could not read https://example.org/?token={SECRET}&x=1"
    run["environment"] = {"api_key": SECRET, "command": f"--password {SECRET} --password={SECRET}"}
    write_json(path, run)
    sync(places, planted, name=f"pwd={SECRET}")
    stored = [p for p in (project / ".mlflow").rglob("*") if p.is_file()]
    assert len(stored) > 10
    assert [p.name for p in stored if SECRET.encode() in p.read_bytes()] == []


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"see http://me:{SECRET}@host:5000/x", "see http://***@host:5000/x"),
        (f"postgresql+psycopg://me:a@{SECRET}/b@host/db", "postgresql+psycopg://***@host/db"),
        (f"https://host/x?access_token={SECRET}&page=2", "https://host/x?access_token=***&page=2"),
        (f"password: '{SECRET} {SECRET}', x", "password: ***, x"),
        (f"--api-key {SECRET}", "--api-key ***"),
        ("https://host:5000/mail/a.b", "https://host:5000/mail/a.b"),
        ("lightning of 12 tokens, loss 0.2", "lightning of 12 tokens, loss 0.2"),
    ],
)
def test_redaction_takes_the_secret_and_leaves_the_rest(text, clean):
    assert redact(text) == clean


# When the store fails --------------------------------------------------------------------------------------------------


def outs(root):
    return {p: p.read_bytes() for p in (root / "outputs").rglob("*") if p.is_file()}


def test_a_server_that_is_not_there_is_said_once_without_the_password_and_the_outs_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{free_port()}")
    places, before = make(tmp_path), outs(tmp_path)
    with pytest.raises(TrackingError) as caught:
        sync(places, EXPERIMENT)
    message = str(caught.value)
    assert "'digits relu lightning 3f2a' is not wholly on record" in message and "the next `deltarule sync` sends it" in message
    assert "http://***@127.0.0.1" in message and SECRET not in message
    assert caught.value.__suppress_context__  # a traceback would show the original
    assert outs(tmp_path) == before


def test_a_server_that_never_answers_is_given_up(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        with pytest.raises(TrackingError, match="the next `deltarule sync` sends it"):
            sync(make(tmp_path), EXPERIMENT)


def test_the_limits_on_requests_are_short_and_end_with_the_sync(tmp_path, monkeypatch):
    place = locate(EXPERIMENT.tracking, tmp_path)
    with store.answering(place, "a try"):
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
        assert int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) < 10
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_a_locked_database_is_said_soon_and_the_next_sync_sends_all(project, no_figures, monkeypatch):
    monkeypatch.setattr(store, "_BUSY_SECONDS", 0.1)
    places = make(project)
    with sqlite3.connect(project / ".mlflow/mlflow.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with monkeypatch.context() as patch, pytest.raises(TrackingError, match="database is locked"):
            patch.setattr("mlflow.MlflowClient", not_asked)  # it would wait 20 s for a lock, and for ever to open one
            sync(places, EXPERIMENT)
        other.execute("ROLLBACK")
    assert client_of(project).get_run(sync(places, EXPERIMENT)).data.metrics["test/accuracy"] == 0.9


def test_a_full_disk_is_said_the_outs_stay_and_the_next_sync_sends_all(small_disk, no_figures, capfd):
    empty_store(small_disk)
    places = make(small_disk)
    outs = {path: path.read_bytes() for path in (small_disk / "outputs").rglob("*") if path.is_file()}
    for left in (0, 40_000):  # not even the journal, and no more than that
        filler = small_disk.fill(left)
        with pytest.raises((TrackingError, OSError), match=r"No space left on device|disk is full"):
            sync(places, EXPERIMENT)
        assert capfd.readouterr().err == ""  # of MLflow
        filler.unlink()
    assert sync(places, EXPERIMENT) and [run.info.status for run in runs(small_disk)] == ["FINISHED"]
    assert outs == {path: path.read_bytes() for path in (small_disk / "outputs").rglob("*") if path.is_file()}


def not_asked(*_, **__):
    raise AssertionError("MLflow was asked")


def test_a_deleted_experiment_is_said_with_a_way_out(project, no_figures):
    places = make(project)
    sync(places, EXPERIMENT)
    client = client_of(project)
    client.delete_experiment(client.get_experiment_by_name("tests").experiment_id)
    with pytest.raises(TrackingError, match=r"was deleted.*tracking.experiment"):
        sync(places, EXPERIMENT)


def test_our_own_mistakes_are_not_taken_for_a_failing_store(tmp_path):
    with pytest.raises(ZeroDivisionError), store.answering(locate(EXPERIMENT.tracking, tmp_path), "a try"):
        _ = 1 / 0


# The pages -------------------------------------------------------------------------------------------------------------


def test_a_taken_port_is_said_with_what_to_do(project):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(TrackingError, match=rf"port {port} of 127.0.0.1 is not free.*--port {port + 1}"):
            tracking.ui(EXPERIMENT, project, port)


def test_a_store_that_is_a_server_is_only_named(project):
    said = []
    spec = EXPERIMENT.override("tracking.uri", f"https://{SECRET}@runs.example.org")
    tracking.ui(spec, project, say=said.append)
    assert said == ["the runs are on https://***@runs.example.org"]


UI = """
import sys
from pathlib import Path
from pipelines.spec import Experiment
from pipelines.tracking import ui
experiment = Experiment.model_validate({"tracking": {"experiment": "tests"}})
ui(experiment, Path(sys.argv[1]), int(sys.argv[2]), lambda text: print(text, flush=True))
"""


def serve(project, port):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", UI, str(project), str(port)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert f"http://127.0.0.1:{port}" in process.stdout.readline()
    return process


def children(pid):
    """Process ids of those whose parent is `pid`, and theirs."""
    found = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [grandchild for child in found for grandchild in children(child)]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for children in /proc")
def test_a_server_gets_what_it_missed_and_leaves_no_process_behind(project, no_figures, capfd):
    port = free_port()
    here, there = make(project, stages=("data", "train")), EXPERIMENT.override("tracking.uri", f"http://127.0.0.1:{port}")
    first = serve(project, port)
    family = children(first.pid)
    run_id = sync(here, there)
    assert len(family) >= 1
    first.send_signal(signal.SIGINT)
    assert first.communicate(timeout=30) == ("", "") and first.returncode == 0
    assert [pid for pid in family if Path(f"/proc/{pid}").exists()] == []
    make(project, stages=("validate", "test"))
    with pytest.raises(TrackingError, match="Connection refused"):
        sync(here, there)
    second = serve(project, port)
    assert sync(here, there) == run_id
    second.send_signal(signal.SIGTERM)
    assert second.communicate(timeout=30) == ("", "") and second.returncode == 0
    assert capfd.readouterr() == ("", "")  # MLflow prints addresses, where --json's one line should stand alone
    run = client_of(project).get_run(run_id)
    assert run.data.metrics["test/accuracy"] == 0.9
    assert len(points(project)) == len({point[:3] for point in points(project)})
    assert "test/metrics.json" in files(project, run_id)
