"""What is written into MLflow's database without MLflow is what MLflow would have written, and is read as it reads it."""

from __future__ import annotations

import importlib
import math
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow_schema import dump, made_by_mlflow, parts

from pipelines.spec import Experiment
from pipelines.tracking import direct, direct_models, locate, model_files, models
from pipelines.tracking import fresh as fresh_database
from pipelines.tracking.store import connect

export_module = importlib.import_module("pipelines.tracking.export")  # the package has a function of that name
TABLES = ("runs", "tags", "params", "metrics", "latest_metrics")
OF_MODELS = ("datasets", "inputs", "input_tags", "logged_models", "logged_model_params", "logged_model_tags")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A database of MLflow's own making, with one experiment. To make one takes seconds; to copy it does not."""
    from mlflow import MlflowClient

    place = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{place}").create_experiment("e", artifact_location="file:///nowhere")
    return place


@pytest.fixture
def fresh(template, tmp_path):
    """A function that gives another copy of it, whose artifacts stand beside it."""
    made = []

    def copy():
        place = tmp_path / f"{len(made)}" / "mlflow.db"
        place.parent.mkdir()
        shutil.copy(template, place)
        with sqlite3.connect(place) as connection:
            where = ((place.parent / "a b").as_uri(),)
            connection.execute("UPDATE experiments SET artifact_location = ? WHERE name = 'e'", where)
        made.append(place)
        return place

    return copy


def theirs(place):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{place}")


def ours(place):
    assert direct.known(place)
    return direct_models.Client(place)


def keep_a_run(client, folder):
    """Everything that is logged, at fixed times; what can be asked of it afterwards."""
    Metric, Param, RunTag = direct.entities(client)
    experiment = client.get_experiment_by_name("e")
    run = client.create_run(experiment.experiment_id, start_time=5, tags={"mlflow.user": "me", "a": "1"}, run_name="first")
    key = run.info.run_id
    client.log_batch(key, metrics=[Metric("loss", 3.0, 10, 1), Metric("loss", 2.0, 11, 2), Metric("loss", 2.0, 11, 2)])
    client.log_batch(key, metrics=[Metric("loss", 9.0, 12, 1), Metric("x y/z", math.nan, 12, 0), Metric("up", math.inf, 12, 0)])
    client.log_batch(key, metrics=[Metric("loss", 2.5, 13, 2), Metric("down", -math.inf, 12, 0), Metric("x y/z", 1.0, 12, 0)])
    client.log_batch(key, params=[Param("p", "1"), Param("q", "")], tags=[RunTag("a", "2"), RunTag("b", "é")])
    client.log_batch(key, params=[Param("p", "1")], metrics=[Metric("loss", 2.5, 13, 2), Metric("loss", 7.0, 14, 1)])
    client.set_tag(key, "mlflow.runName", "second")
    client.update_run(key, "KILLED")
    client.set_terminated(key, "FINISHED", 77)
    folder.mkdir()
    (folder / "one.txt").write_text("one")
    (folder / "deep").mkdir()
    (folder / "deep/two.txt").write_text("two")
    client.log_artifact(key, str(folder / "one.txt"))
    client.log_artifact(key, str(folder / "one.txt"), "below/it")
    client.log_artifacts(key, str(folder), "all")
    client.log_text(key, "told ü", "said/told.txt")
    return told(client, key)


def told(client, key):
    run = client.get_run(key)
    experiment = client.get_experiment_by_name("e")
    history = {name: points(client, key, name) for name in sorted(run.data.metrics)}
    by_tag = client.search_runs([experiment.experiment_id], "tags.`a` = '2' and tags.`b` = 'é'")
    none = client.search_runs([experiment.experiment_id], "tags.`a` = '1'", max_results=1)
    ended, going = (
        client.search_runs([experiment.experiment_id], f"tags.`a` = '2' and attributes.status = '{status}'")
        for status in ("FINISHED", "RUNNING")
    )
    by_metric = client.search_runs([experiment.experiment_id], "metrics.loss > 2")
    found = [[one.info.run_id == key for one in some] for some in (by_tag, none, ended, going, by_metric)]
    info = run.info.run_name, run.info.status, run.info.start_time, run.info.end_time, run.info.lifecycle_stage
    return info, dict(run.data.params), dict(run.data.tags), str(sorted(run.data.metrics.items())), str(history), found


def points(client, key, name):
    history = client.get_metric_history(key, name)
    return sorted(([m.key, m.value, m.timestamp, m.step] for m in history), key=lambda point: point[2])


def rows(place):
    found = {}
    with sqlite3.connect(place) as connection:
        connection.row_factory = sqlite3.Row
        (run_id,) = next(connection.execute("SELECT run_uuid FROM runs"))
        for table in TABLES:
            content = [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
            plain = [
                {k: str(v).replace(run_id, "ID").replace(place.parent.as_uri(), "") for k, v in row.items()} for row in content
            ]
            found[table] = sorted(sorted(row.items()) for row in plain)
    return found


def keep_a_model(client, folder):
    """Rows, of which some are put on it twice, and a model with its files; what can be asked of them afterwards."""
    kinds = direct_models.entities(client)
    sets = [kinds.Dataset(name, digest, "local", '{"uri": "é"}', schema, "{}") for name, digest, schema in SETS]
    (first, second), used = ((client.create_run("1", tags={}, run_name="r").info.run_id for _ in range(2)), sets[:3])
    for key, some in ((first, used), (first, used), (second, sets)):
        given = [kinds.DatasetInput(one, [kinds.InputTag("mlflow.data.context", f"{n}")]) for n, one in enumerate(some)]
        client.log_inputs(key, given)
    models = [
        client.create_logged_model("1", "model", key, params={"b": "[1, 2]", "a": "é"}, model_type="t") for key in (first, second)
    ]
    client.log_outputs(first, [kinds.LoggedModelOutput(models[0].model_id, step=3)])
    folder.mkdir()
    (folder / "deep").mkdir()
    (folder / "deep/two.txt").write_text("two")
    client.log_model_artifacts(models[0].model_id, str(folder))
    client.finalize_logged_model(models[0].model_id, "READY")
    return told_of_models(client, first), told_of_models(client, second)


SETS = [("rows", "1", "{}"), ("rows", "1", "not this one"), ("rows", "2", None), ("other", "2", "{}")]


def told_of_models(client, key):
    found = client.search_logged_models(["1"], filter_string=f"source_run_id = '{key}' AND name = 'model'", max_results=1)
    other = client.search_logged_models(["1"], filter_string=f"source_run_id = '{key}' AND name = 'another'")
    plain = [
        (m.name, str(m.status), m.experiment_id, m.model_type, m.source_run_id == key, m.artifact_location.count(m.model_id))
        for m in found
    ]
    return plain, len(other), [one == found[0].model_id for one in direct_models.put_out(client, key)]


def rows_of_models(place):
    """All rows, with numbers for keys, in the order in which they came, and without times."""
    with sqlite3.connect(place) as connection:
        tables = {table: connection.execute(f"SELECT * FROM {table} ORDER BY rowid") for table in OF_MODELS}
        content = {
            name: [dict(zip([c[0] for c in rows.description], row, strict=True)) for row in rows] for name, rows in tables.items()
        }
    plain = [
        [table, sorted((k, v) for k, v in row.items() if "timestamp" not in k)] for table, rows in content.items() for row in rows
    ]
    text, keys = str(plain).replace(place.parent.as_uri(), ""), {}
    return re.sub(r"[0-9a-f]{32}", lambda match: keys.setdefault(match[0], f"key {len(keys)}"), text)


def test_data_sets_and_models_leave_the_same_rows_files_and_answers(fresh, tmp_path):
    mine, other = fresh(), fresh()
    assert keep_a_model(ours(mine), tmp_path / "m") == keep_a_model(theirs(other), tmp_path / "o")
    assert rows_of_models(mine) == rows_of_models(other)
    assert [path.read_text() for path in mine.parent.rglob("two.txt")] == ["two"] and str(files(other)).count("two.txt") == 1


@pytest.mark.parametrize("last", ["create_logged_model", "log_outputs", "log_model_artifacts", "finalize_logged_model"])
def test_a_model_that_was_cut_short_anywhere_is_there_once_and_whole(fresh, tmp_path, monkeypatch, last):
    place, real = fresh(), getattr(direct_models.Client, last)
    (tmp_path / "made").mkdir()
    (tmp_path / "made/MLmodel").write_text("flavors: {}\n")
    run = ours(place).create_run("1", tags={}, run_name="r")

    def carry_out_and_die(*arguments, **named):
        real(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(direct_models.Client, last, carry_out_and_die)
        with pytest.raises(KeyboardInterrupt):
            models.send(ours(place), run, {"model": "made"}, tmp_path)
    models.send(ours(place), run, {"model": "made"}, tmp_path)
    [model] = theirs(place).search_logged_models(["1"])
    assert str(model.status) == "READY" and direct_models.put_out(theirs(place), run.info.run_id) == [model.model_id]
    [description] = place.parent.rglob("MLmodel")
    assert f"run_id: {run.info.run_id}" in description.read_text() and model.model_id in str(description)


def test_a_model_is_finished_later_than_it_was_begun(fresh):
    place = fresh()
    made = ours(place).create_logged_model("1", "model", "0" * 32)
    with sqlite3.connect(place) as connection:
        connection.execute("UPDATE logged_models SET creation_timestamp_ms = 1, last_updated_timestamp_ms = 1")
    ours(place).finalize_logged_model(made.model_id, "READY")
    found = theirs(place).get_logged_model(made.model_id)
    assert (str(found.status), found.creation_timestamp) == ("READY", 1) and found.last_updated_timestamp > 1


COLUMNS = {"größe, 'x'": [1.5, 1.5], "yes": ["false", "true"], "012": ["", "é\n"], "n": [3, 3], "a: b": ["2024-01-01", "x" * 200]}


def test_the_folder_of_a_model_is_the_one_that_mlflow_writes(tmp_path):
    """Else a new MLflow writes another: then look at model_files.py."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/about.json").write_text('{"é": 1}', "utf-8")
    (tmp_path / "model.py").write_text(export_module.CODE)
    model = model_files.Written(
        tmp_path / "model.py", tmp_path / "run", dict.fromkeys(COLUMNS, "numeric"), {"predicted": "string", "p_é": "double"},
        COLUMNS, ["mlflow==3.17.2", "a==1"],
    )  # fmt: skip
    for save, name in ((model_files.save, "ours"), (export_module.save_by_mlflow, "theirs")):
        save(model, tmp_path / name)
        model_files.describe(tmp_path / name, {"run_id": "1", "model_id": "2", "artifact_path": "é"})
    mine, other = ({p.relative_to(d): _but_for_its_birth(p) for p in d.rglob("*") if p.is_file()} for d in
                   (tmp_path / "ours", tmp_path / "theirs"))  # fmt: skip
    assert mine == other and len(mine) == 8


def _but_for_its_birth(path):
    return re.sub(r"(model_uuid|utc_time_created): .*", "", path.read_text("utf-8"))


def test_what_another_mlflow_wants_and_columns_without_a_name_are_its_own_matter(monkeypatch):
    assert model_files.known(["a"]) and not model_files.known(["a", ""])
    monkeypatch.setattr(model_files, "VERSIONS", ("2.",))
    assert not model_files.known(["a"])


def files(place):
    base = place.parent / "a b"
    return {"/".join(p.relative_to(base).parts[1:]): p.read_text() for p in base.rglob("*") if p.is_file()}


@pytest.mark.parametrize("database", ["made by MLflow", "made here"])
def test_an_experiment_is_the_one_that_mlflow_makes(database, template, tmp_path):
    for name, client in (("m", ours), ("o", theirs)):
        place = tmp_path / name
        shutil.copy(template, place) if database == "made by MLflow" else fresh_database.make(place, tmp_path)
        number = client(place).create_experiment("new one", artifact_location="file:///a%20b", tags={"k": "v", "l": "é"})
        assert client(place).get_experiment_by_name("new one").experiment_id == number
    assert dump(tmp_path / "m") == dump(tmp_path / "o")


def test_an_experiment_that_mlflow_refuses_is_refused(fresh):
    from mlflow.exceptions import MlflowException

    for name, text in (("e", "already exists"), ("", "Invalid experiment name"), ("x" * 600, "exceeds the maximum length")):
        with pytest.raises(MlflowException, match=text):
            ours(fresh()).create_experiment(name, artifact_location="file:///a")


def test_a_database_that_is_made_here_is_the_one_that_mlflow_makes(tmp_path):
    """Else a new MLflow has other tables: see mlflow_schema.py."""
    assert fresh_database.known()
    fresh_database.make(tmp_path / "here.db", tmp_path)
    (default,) = theirs(tmp_path / "here.db").search_experiments()
    assert default.artifact_location == str(tmp_path / "mlruns/0") and default.creation_time > 1.7e12
    assert dump(tmp_path / "here.db") == fresh_database.SCHEMA.read_text()
    assert parts(dump(tmp_path / "here.db")) == parts(made_by_mlflow(tmp_path / "theirs.db"))


def test_an_mlflow_of_other_tables_makes_its_database_itself(tmp_path, monkeypatch):
    versions = tmp_path / "mlflow/store/db_migrations/versions"
    versions.mkdir(parents=True)
    (versions / "a.py").write_text('revision = "aa"\ndown_revision = None\n')
    (versions / "b.py").write_text('revision = "bb"\ndown_revision = "aa"\n')
    assert fresh_database.latest(versions) == ["bb"]
    monkeypatch.setattr(fresh_database, "_MADE", re.compile("no such line"))
    fresh_database.known.cache_clear()
    monkeypatch.setattr(fresh_database, "make", None)
    try:
        store = locate(Experiment().tracking, tmp_path)
        with store.lock():
            connect(store)
    finally:
        fresh_database.known.cache_clear()
    assert direct.known(store.database)


def test_the_same_calls_leave_the_same_rows_files_and_answers(fresh, tmp_path):
    """Else a new MLflow has changed its tables, or what its client writes into them: then look at direct.py."""
    mine, other = fresh(), fresh()
    assert keep_a_run(ours(mine), tmp_path / "m") == keep_a_run(theirs(other), tmp_path / "o")
    assert rows(mine) == rows(other)
    assert files(mine) == files(other) and len(files(mine)) == 5


def test_what_one_wrote_the_other_reads(fresh, tmp_path):
    place = fresh()
    keep_a_run(ours(place), tmp_path / "m")
    key = ours(place).search_runs(["1"], "tags.`a` = '2'")[0].info.run_id
    assert told(ours(place), key) == told(theirs(place), key)


def test_runs_come_in_the_order_that_was_asked_for_and_deleted_ones_do_not(fresh):
    place = fresh()
    keys = [ours(place).create_run("1", start_time=time, tags={"k": "v"}, run_name="r").info.run_id for time in (2, 1, 3)]
    theirs(place).delete_run(keys[2])
    for order, wanted in (("ASC", [keys[1], keys[0]]), ("DESC", [keys[0], keys[1]])):
        for client in (ours(place), theirs(place)):
            found = client.search_runs(["1"], "tags.`k` = 'v'", order_by=[f"attributes.start_time {order}"])
            assert [run.info.run_id for run in found] == wanted


def test_what_mlflow_refuses_is_refused_and_nothing_of_it_is_kept(fresh):
    from mlflow.exceptions import MlflowException

    place = fresh()
    client = ours(place)
    key = client.create_run("1", tags={}, run_name="r").info.run_id
    client.log_batch(key, params=[direct.Param("p", "1")])
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        client.log_batch(key, metrics=[direct.Metric("m", 1.0, 1, 1)], params=[direct.Param("p", "2")])
    assert client.get_run(key).data.metrics == {} and client.get_run(key).data.params == {"p": "1"}
    with pytest.raises(MlflowException, match="not found"):
        client.get_run("0" * 32)


def test_other_tables_another_version_and_a_missing_database_are_left_to_mlflow(fresh, tmp_path, monkeypatch):
    place = fresh()
    assert direct.known(place) and not direct.known(tmp_path / "missing.db")
    with monkeypatch.context() as patch:
        patch.setattr(direct, "VERSIONS", ("2.",))
        assert not direct.known(place)
    with sqlite3.connect(place) as connection:
        connection.execute("ALTER TABLE metrics ADD COLUMN unit TEXT")
    assert not direct.known(place)
    (tmp_path / "no.db").write_text("no database")
    assert not direct.known(tmp_path / "no.db")


def test_a_store_is_made_and_written_to_without_importing_mlflow(tmp_path):
    code = """
import sys
from pathlib import Path
from pipelines.spec import Experiment
from pipelines.tracking import direct, locate
from pipelines.tracking.store import connect
store = locate(Experiment().tracking, Path(sys.argv[1]))
with store.lock():
    client, experiment = connect(store)
key = client.create_run(experiment, tags={"a": "b"}, run_name="r").info.run_id
client.log_batch(key, metrics=[direct.Metric("m", 1.0, 1, 1)])
client.update_run(key, "FINISHED")
print(key, sorted({name.partition(".")[0] for name in sys.modules} & {"mlflow", "sqlalchemy", "pandas"}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True
    )
    key, _, loaded = done.stdout.strip().partition(" ")
    assert loaded == "[]"
    run = theirs(tmp_path / ".mlflow/mlflow.db").get_run(key)
    assert run.info.status == "FINISHED" and run.data.metrics == {"m": 1.0} and run.data.tags["a"] == "b"
