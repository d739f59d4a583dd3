"""The four stages: what each writes, what it refuses, and which rows it can see."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import call

import backends
from backends import weights
from pipelines import stages
from pipelines.api.evaluate import evaluate
from pipelines.api.results import Run
from pipelines.cli import run as commands
from pipelines.cli.app import WAYS_OUT, main
from pipelines.data import DataError, read
from pipelines.data.parts import read_json
from pipelines.record.events import events
from pipelines.report.outs import Outs
from pipelines.spec import DataSpec, Experiment, SpecError, load
from pipelines.stages import RunPaths, StageError, ThresholdError
from pipelines.stages.networks import stored_networks
from pipelines.stages.test import enter, openers

ALL = ("split", "train", "validate", "test")
PLAIN = {"validation": {"baselines": False}}  # tests/test_baselines.py has them
BUNDLED = ("digits", "breast_cancer", "wine", "iris", "diabetes", "linnerud")


def experiment(source="iris", /, **changes):
    """A small one, on the reference. changes: model__hidden=(3,) and the like."""
    train = {"backend": "reference", "epochs": 4, "optimizer": {"name": "adam", "learning_rate": 0.02}}
    small = Experiment.model_validate({"data": {"source": source}, "model": {"hidden": [8]}, "train": train, **PLAIN})
    return small.override({name.replace("__", "."): value for name, value in changes.items()}) if changes else small


@pytest.fixture
def places(tmp_path):
    return RunPaths(tmp_path / "root", base=tmp_path)


def carry_out(spec, places, *names):
    """These stages, in order; what the last one returned."""
    return [getattr(stages, name)(spec, places) for name in names or ALL][-1]


def outs(places):
    """Path below the root -> bytes, of all that the stages wrote."""
    folder = places.root / "outputs"
    return {p.relative_to(places.root).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def kept(path):
    return json.loads(path.read_text())


# What they write -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", BUNDLED)
def test_four_stages_give_metrics_on_every_bundled_set(places, source):
    reports = {name: carry_out(experiment(source), places, name) for name in ALL}
    assert reports["train"]["best_val_loss"] == pytest.approx(reports["validate"]["loss"], rel=1e-12)
    assert set(reports["validate"]) == set(reports["test"]) - {"openings"}
    for name in ("validate", "test"):
        plain = [key for key in reports[name] if not key.endswith(("_low", "_high")) and key != "openings"]
        bounds = [(f"{key}_low", key, f"{key}_high") for key in plain]
        assert {key for each in bounds for key in each} == set(reports["validate"])
        outside = [b for b in bounds if not reports[name][b[0]] <= reports[name][b[1]] <= reports[name][b[2]]]
        assert not outside, [(b, [reports[name][k] for k in b]) for b in outside]
        on_disk = kept(places.report(name) / "metrics.json")
        assert on_disk == {k: v for k, v in reports[name].items() if k != "openings"}
        curves = {"roc.csv", "pr.csv", "calibration.csv", "classes.csv"}
        kinds = {"residuals.csv"} if source in ("diabetes", "linnerud") else {"confusion.csv"} | curves
        whole = {"about.json", "metrics.json", "baselines.json", "predictions.csv"}
        assert {p.name for p in places.report(name).iterdir()} == whole | kinds


@pytest.mark.parametrize("source", ["iris", "breast_cancer", "linnerud"])
def test_the_same_spec_gives_the_same_bytes_and_no_trace_of_place(tmp_path, source):
    one, two = RunPaths(tmp_path / "one"), RunPaths(tmp_path / "two")
    for where in (one, two):
        carry_out(experiment(source, model__dropout=0.3), where)
    assert len(outs(one)) >= 20
    assert outs(one) == outs(two)
    assert not [name for name, content in outs(one).items() if str(tmp_path).encode() in content]


def test_carrying_them_out_again_changes_no_byte(places):
    carry_out(experiment(), places)
    first = outs(places)
    carry_out(experiment(), places)
    assert outs(places) == first


def test_outs_of_another_task_do_not_stay_behind(places):
    carry_out(experiment("iris"), places)
    carry_out(experiment("diabetes"), places)
    left = [path for name in ("confusion", "roc", "pr", "calibration", "classes") for path in places.root.rglob(f"{name}.csv")]
    assert not left


def test_a_history_has_a_row_an_epoch_and_numbers_to_the_last_bit(places):
    seen = []
    spec = experiment(regularization__l2=0.01)
    carry_out(spec, places, "split")
    stages.train(spec, places, progress=seen.append)
    rows = table(places.history)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [{k: float(v) for k, v in row.items()} for row in rows] == seen
    assert float(rows[0]["train_penalty"]) > 0


def test_run_json_tells_the_spec_the_place_and_the_end(places):
    spec = experiment(validation__baselines=True)  # of what comes later it says nothing
    carry_out(spec, places, "split", "train")
    run = kept(places.run)
    assert Experiment.model_validate(run["spec"]) == spec
    assert (run["ended"], run["best_epoch"], run["backend"]) == ("completed", 4, "reference")
    assert set(run["data_hashes"]) == {"train", "valid"}
    assert {"cpu", "isa", "threads", "devices", "platform"} == set(run["environment"])
    assert len(run["fingerprint"]) == 32


def test_search_tracking_and_thresholds_change_no_byte_of_train(places, tmp_path):
    carry_out(experiment(), places, "split", "train")
    other = RunPaths(tmp_path / "other")
    changed = experiment(search__trials=3, tracking__experiment="x", thresholds={"accuracy": {"min": 0.1}})
    carry_out(changed, other, "split", "train")
    assert outs(places) == outs(other)


class Lines(list):
    """A console that keeps what is said."""

    def say(self, line):
        self.append(line)


def test_split_tells_what_is_not_as_one_would_wish(places, tmp_path):
    rows = [f"{i:03},{i % 9 or ''},{'red' if i % 2 else 'blue'},{i * 7 % 60}" for i in range(60)]
    (tmp_path / "mine.csv").write_text("\n".join(["id,a,colour,y", *rows, "061,3,red,21"]))
    lines = Lines()
    spec = experiment().override({"data.source": "mine.csv", "data.target": "y"})
    commands.show(lines, {"split": carry_out(spec, places, "split")}, {"split": 0.1})
    assert lines[0] == "mine.csv: regression, 4 inputs, 1 outputs; rows: 37 training, 12 validation, 12 test"
    assert lines[1] == "columns: 1 numeric, 1 categorical"
    assert lines[2].startswith("no inputs: id (61 different texts in 61 rows")
    assert lines[3] == "missing values: a 7"
    assert lines[4] == "duplicates: 1 rows equal an earlier one in every column; equal ones are in one part"
    assert len(lines) == 6


def test_split_tells_of_folds(places):
    lines = Lines()
    commands.show(lines, {"split": carry_out(experiment("iris", data__split__folds=5), places, "split")}, {"split": 0.1})
    assert lines[0] == "iris: multiclass, 4 inputs, 3 outputs; rows: 120 in 5 folds, 30 test"


def test_predictions_name_the_row_of_the_source_and_its_label(places):
    carry_out(experiment("iris"), places)
    kinds = read(DataSpec(source="iris")).fetch("species")
    labels = np.array(kinds.categories)[kinds.values]
    rows = table(places.report("test") / "predictions.csv")
    assert all(row["label"] == labels[int(row["row"])] for row in rows)
    for row in rows:
        chances = {name[2:]: float(row[name]) for name in row if name.startswith("p_")}
        assert sum(chances.values()) == pytest.approx(1)
        assert row["predicted"] == max(chances, key=chances.get)
    pairs = table(places.report("test") / "confusion.csv")
    assert [(r["label"], r["predicted"]) for r in rows] == [(p["actual"], p["predicted"]) for p in pairs]


def test_regression_is_told_in_the_targets_own_units(places):
    report = carry_out(experiment("linnerud"), places)
    source = read(DataSpec(source="linnerud"))
    labels = np.stack([source.fetch(name).values for name in source.targets], axis=1)
    rows = table(places.report("test") / "predictions.csv")
    for row in rows:
        own = [float(row[f"label_{name}"]) for name in ("Weight", "Waist", "Pulse")]
        np.testing.assert_allclose(own, labels[int(row["row"])])
    left = [r for r in table(places.report("test") / "residuals.csv") if r["target"] == "Pulse"]
    assert np.sqrt(np.mean([float(r["residual"]) ** 2 for r in left])) == pytest.approx(report["rmse.Pulse"])


def test_a_csv_file_is_found_from_the_base(places, tmp_path):
    lines = [f"{i % 7},{i % 5},{'yes' if i % 7 > 3 else 'no'}" for i in range(90)]
    (tmp_path / "mine.csv").write_text("\n".join(["a,b,bought", *lines]))
    spec = Experiment.model_validate({**experiment().model_dump(), "data": {"source": "mine.csv", "target": "bought"}})
    assert carry_out(spec, places)["accuracy"] > 0.5
    assert kept(places.about)["classes"] == ["no", "yes"]
    with pytest.raises(DataError, match=r"found none at 'mine\.csv'"):
        stages.split(spec, RunPaths(tmp_path / "elsewhere", base=tmp_path / "root"))


# Keras takes one engine a process: tests/test_keras_jax.py runs the one in a process of its own.
JAX = os.environ.get("KERAS_BACKEND") == "jax"
ON_JAX = pytest.mark.skipif(not JAX, reason="tests/test_keras_jax.py runs it, in its own process")
MARKS = {"reference": (), "keras-jax": (pytest.mark.slow, ON_JAX)}


@pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=MARKS.get(name, pytest.mark.slow)) for name in backends.registered()]
)
def test_validate_sees_the_loss_that_training_chose_by_whatever_trained(places, backend):
    spec = experiment("breast_cancer", train__backend=backend, model__dropout=0.2)
    carry_out(spec, places, "split", "train", "validate")
    assert kept(places.report("validate") / "metrics.json")["loss"] == pytest.approx(
        kept(places.trained / "metrics.json")["best_val_loss"], rel=1e-5
    )


def test_early_stopping_watches_the_metric_that_the_spec_names(places):
    spec = experiment("breast_cancer", train__early_stopping={"monitor": "roc_auc", "patience": 2}, train__epochs=30)
    report = carry_out(spec, places, "split", "train")
    values = [float(row["val_roc_auc"]) for row in table(places.history)]
    assert report["best_epoch"] == 1 + int(np.argmax(values))
    assert report["epochs"] == min(30, report["best_epoch"] + 2)
    assert carry_out(spec, places, "validate")["roc_auc"] == pytest.approx(max(values))


# Who sees which rows ---------------------------------------------------------------------------------------------------


def test_train_and_validate_work_where_there_are_no_test_rows(places):
    spec = experiment()
    carry_out(spec, places, "split")
    shutil.rmtree(places.data / "test")
    carry_out(spec, places, "train", "validate")
    with pytest.raises(DataError, match="is missing"):
        carry_out(spec, places, "test")


def test_test_and_validate_open_the_rows_of_their_part_alone_but_for_baselines(places):
    spec = experiment()
    carry_out(spec, places, "split", "train")
    for part in ("train", "test"):
        (places.data / part).rename(places.root / part)
    carry_out(spec, places, "validate")
    (places.root / "test").rename(places.data / "test")
    (places.data / "valid").rename(places.root / "valid")
    carry_out(spec, places, "test")
    with pytest.raises(DataError, match="is missing"):
        carry_out(experiment(validation__baselines=True), places, "test")


def test_the_test_rows_stay_closed_until_validate_has_reported(places):
    spec = experiment()
    carry_out(spec, places, "split", "train")
    with pytest.raises(StageError, match=r"outputs/validate/about\.json is missing; run `deltarule validate`"):
        carry_out(spec, places, "test")
    assert not places.ledger.exists()


def test_the_test_rows_stay_closed_for_a_model_that_validate_has_not_seen(places):
    carry_out(experiment(), places, "split", "train", "validate")
    carry_out(experiment(seed=1), places, "train")
    with pytest.raises(StageError, match="reports on another model than the one in place"):
        carry_out(experiment(seed=1), places, "test")


def test_the_test_rows_stay_closed_while_a_threshold_is_missed(places):
    strict = experiment(thresholds={"accuracy": {"min": 1.0}}, train__epochs=1)
    carry_out(strict, places, "split", "train")
    with pytest.raises(ThresholdError):
        carry_out(strict, places, "validate")
    with pytest.raises(StageError, match="misses a threshold of the spec, so the test rows stay closed") as caught:
        carry_out(strict, places, "test")
    assert caught.value.exit_code == 1
    carry_out(strict.override("thresholds", {}), places, "validate", "test")


def test_experiments_that_open_the_same_test_rows_are_counted(tmp_path):
    (tmp_path / ".dvc").mkdir()
    roots = [RunPaths(tmp_path / f"runs/{name}") for name in "abcd"]
    counts = [carry_out(spec, root)["openings"] for spec, root in zip(
        [experiment(), experiment(seed=1), experiment(), experiment(data__split__seed=9)], roots, strict=True)]  # fmt: skip
    assert counts == [1, 2, 2, 1]  # the third is the first again; the last has other test rows
    assert roots[0].ledger == tmp_path / ".deltarule/test-openings.jsonl"


def test_a_temporary_copy_of_dvc_counts_in_the_project_it_came_from(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    assert RunPaths(tmp_path / "copy").ledger == tmp_path / "project/.deltarule/test-openings.jsonl"


def test_a_line_of_the_count_that_a_crash_cut_short_is_passed_over(tmp_path):
    ledger = tmp_path / "openings.jsonl"
    enter(ledger, "rows", "one")
    with ledger.open("a") as file:
        file.write('{"test": "rows", "finger')
    assert enter(ledger, "rows", "two") == 2
    assert openers(ledger, "rows") == {"one", "two"}


# Thresholds ------------------------------------------------------------------------------------------------------------


def test_a_missed_threshold_holds_the_pipeline_after_the_report_is_written(places):
    spec = experiment("diabetes", thresholds={"rmse": {"max": 1.0}, "r2": {"min": 0.999}, "mae": {"min": 0}})
    carry_out(spec, places, "split", "train")
    with pytest.raises(ThresholdError) as caught:
        carry_out(spec, places, "validate")
    assert caught.value.exit_code == 1
    assert "rmse must be at most 1, got" in str(caught.value)
    assert "r2 must be at least 0.999, got" in str(caught.value)
    assert "mae" not in str(caught.value)
    assert kept(places.report("validate") / "metrics.json")["rmse"] > 1


def test_a_threshold_of_a_metric_that_there_is_not_is_refused_with_those_there_are(places):
    spec = experiment(thresholds={"rmse": {"max": 1.0}})
    carry_out(spec, places, "split", "train")
    with pytest.raises(SpecError, match="thresholds must name metrics of a multiclass task, got rmse; they are: loss, accuracy"):
        carry_out(spec, places, "validate")


# What they refuse ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("done", "stage", "message"),
    [
        ((), "train", "outputs/data/about.json is missing; run `deltarule split` or `dvc repro` first"),
        ((), "validate", "outputs/data/about.json is missing; run `deltarule split` or `dvc repro` first"),
        (("split",), "validate", "outputs/train/run.json is missing; run `deltarule train` or `dvc repro` first"),
        (("split",), "test", "outputs/train/run.json is missing; run `deltarule train` or `dvc repro` first"),
    ],
)
def test_a_stage_without_what_it_needs_says_what_to_run(places, done, stage, message):
    if done:
        carry_out(experiment(), places, *done)
    with pytest.raises(StageError) as caught:
        carry_out(experiment(), places, stage)
    assert (str(caught.value), caught.value.exit_code) == (message, 2)


def test_a_model_of_other_data_or_of_another_spec_is_not_reported_on(places):
    carry_out(experiment(), places, "split", "train")
    with pytest.raises(StageError, match=r"another spec .*: model\.activation \(relu, now tanh\); run `deltarule train`"):
        carry_out(experiment(model__activation="tanh"), places, "validate")
    carry_out(experiment(train__threads=2), places, "validate")  # computes the same
    carry_out(experiment(data__split__seed=4), places, "split")
    with pytest.raises(StageError, match="other data than now: train, valid; run `deltarule train`"):
        carry_out(experiment(data__split__seed=4), places, "validate")


@pytest.mark.parametrize(
    ("split_with", "told"),
    [
        ({"data__scaling": "minmax"}, "data.scaling (minmax, now standardize)"),
        (
            {"data__split__seed": 4, "data__columns": {"petal*": "ignore"}},
            "data.columns.petal* (ignore, now null), data.split.seed (4, now 0)",
        ),
    ],
)
@pytest.mark.parametrize("stage", ["train", "validate", "test", "evaluate"])
def test_rows_that_another_data_block_made_are_refused_and_the_keys_named(places, stage, split_with, told):
    carry_out(experiment(**split_with), places, "split", "train")
    with pytest.raises(StageError) as refused:
        (evaluate if stage == "evaluate" else getattr(stages, stage))(experiment(), places)
    assert str(refused.value) == (
        f"outputs/data holds rows of another data block than the spec's: {told}; run `deltarule split` or `dvc repro` first"
    )
    assert refused.value.exit_code == 2


def test_rows_that_were_split_before_the_data_block_stood_beside_them_are_taken(places):
    carry_out(experiment(), places, "split")
    old = read_json(places.about)
    del old["data"]
    places.about.write_text(json.dumps(old))
    carry_out(experiment(), places, "train", "validate", "test")


def test_a_model_file_that_was_exchanged_is_not_reported_on(places):
    carry_out(experiment(), places, "split", "train")
    trial, flat = weights.load(places.model)
    weights.save(places.model, trial, flat + 1)
    with pytest.raises(StageError, match=r"now: model\.safetensors"):
        carry_out(experiment(), places, "validate")


def test_a_run_that_diverges_leaves_its_record_but_no_model(places):
    carry_out(experiment("diabetes"), places, "split", "train")
    wild = experiment("diabetes", train__optimizer={"name": "sgd", "learning_rate": 1e6}, train__epochs=20)
    with pytest.raises(StageError, match=r"diverged at step \d+.*try a smaller train\.optimizer\.learning_rate") as caught:
        carry_out(wild, places, "train")
    assert caught.value.exit_code == 1
    assert kept(places.run)["ended"] == "diverged"
    assert places.history.exists() and (places.trained / "metrics.json").exists()
    assert not places.model.exists()
    with pytest.raises(StageError, match=r"model\.safetensors is missing"):
        carry_out(wild, places, "validate")


def test_a_run_that_diverges_after_good_epochs_leaves_no_model_either(places):
    rising, sgd = {"name": "constant", "warmup": 2000}, {"name": "sgd", "learning_rate": 20.0}
    spec = experiment("diabetes", train__schedule=rising, train__optimizer=sgd, train__epochs=40)
    carry_out(spec, places, "split")
    with pytest.raises(StageError, match="diverged"):
        carry_out(spec, places, "train")
    rows = table(places.history)
    assert len(rows) > 1 and float(rows[0]["val_loss"]) < 1  # there were weights that could have been kept
    assert not places.model.exists()


def test_a_monitor_that_there_is_not_is_refused(places):
    spec = experiment(train__early_stopping={"monitor": "rmse"})
    carry_out(spec, places, "split")
    for monitor, near in (("rmse", "known are: loss, accuracy"), ("f1", r"did you mean macro_f1\?")):
        refused = experiment(train__early_stopping={"monitor": monitor})
        said = rf"train\.early_stopping\.monitor must be a metric of multiclass, got '{monitor}'; {near}"
        with pytest.raises(SpecError, match=said):
            carry_out(refused, places, "train")


# Killed, and two at once -----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill in the middle of an epoch."""


def test_a_killed_train_goes_on_to_the_same_bytes(places, tmp_path, monkeypatch):
    monkeypatch.setattr("backends.supervisor.CHECKPOINT_SECONDS", -1.0)
    spec = experiment("wine", model__dropout=0.3)
    whole = RunPaths(tmp_path / "whole")
    carry_out(spec, whole, "split", "train")
    carry_out(spec, places, "split")

    def kill(record):
        if record["epoch"] == 3:
            raise Killed

    with pytest.raises(Killed):
        stages.train(spec, places, progress=kill)
    assert not places.trained.exists()
    [checkpoint] = (places.root / ".deltarule").glob("checkpoint-*")
    epochs = []
    stages.train(spec, places, progress=lambda record: epochs.append(record["epoch"]))
    assert epochs == [3, 4]
    assert outs(places) == outs(whole)
    assert not checkpoint.exists()


def test_a_second_stage_in_the_same_root_waits_and_then_says_why_it_cannot(places, monkeypatch):
    monkeypatch.setattr("pipelines.stages.paths.LOCK_SECONDS", 0.05)
    holds, done = threading.Event(), threading.Event()

    def hold():
        with places.locked():
            holds.set()
            done.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    holds.wait(30)
    try:
        with pytest.raises(StageError, match="another process is running a stage in"):
            carry_out(experiment(), places, "split")
    finally:
        done.set()
        other.join()
    carry_out(experiment(), places, "split")


def test_the_lock_of_a_process_that_was_killed_is_free(places):
    code = f"""
import os, pathlib
from pipelines.stages import RunPaths
with RunPaths(pathlib.Path({str(places.root)!r})).locked():
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    carry_out(experiment(), places, "split")


FRAMEWORKS = {"torch", "lightning", "pytorch_lightning", "keras", "tensorflow", "jax", "mlflow", "optuna"}
LATE = {"sklearn", "scipy", "pandas", "pyarrow", "matplotlib"}


def test_importing_the_stages_loads_nothing_heavy():
    code = f"import sys, pipelines.stages; print(*{FRAMEWORKS | LATE} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split() == []


def test_validate_and_test_load_no_framework(places):
    spec = experiment()
    carry_out(spec, places, "split", "train")
    code = f"""
import sys, pathlib
from pipelines import stages
from pipelines.spec import Experiment
spec = Experiment.model_validate_json({spec.model_dump_json()!r})
places = stages.RunPaths(pathlib.Path({str(places.root)!r}))
stages.validate(spec, places), stages.test(spec, places)
print(*{FRAMEWORKS | {"matplotlib"}} & set(sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split() == []


# Damage ----------------------------------------------------------------------------------------------------------------

OPENED = {  # what opens each of them
    "data/train/X.npy": lambda spec, places: stages.train(spec, places),
    "data/valid/y.npy": lambda spec, places: stages.train(spec, places),
    "data/test/rows.npy": lambda spec, places: stages.test(spec, places),
    "data/about.json": lambda spec, places: stored_networks(places.root),
    "train/model.safetensors": lambda spec, places: stages.validate(spec, places),
    "train/run.json": lambda spec, places: stages.validate(spec, places),
    "train/history.csv": lambda spec, places: Run(places.root).history,
    "train/weights.csv": lambda spec, places: Outs(places.root).rows("train/weights.csv"),
    "train/metrics.json": lambda spec, places: Outs(places.root).json("train/metrics.json"),
    "validate/about.json": lambda spec, places: stages.test(spec, places),
    "validate/metrics.json": lambda spec, places: Run(places.root).metrics,
    "validate/roc.csv": lambda spec, places: Outs(places.root).rows("validate/roc.csv"),
}
RECORDED = {name for name in OPENED if not name.endswith(".npy")}


def test_an_out_with_a_flipped_byte_or_a_cut_is_refused_by_its_name_and_made_anew_as_advised(places):
    spec = experiment()
    carry_out(spec, places)
    made = outs(places)
    for name, opens in OPENED.items():
        file, whole = places.root / "outputs" / name, made[f"outputs/{name}"]
        for spoilt in (flipped(whole, len(whole) // 2), flipped(whole, -50), whole[:-1]):
            file.write_bytes(spoilt)
            with pytest.raises((DataError, StageError)) as error:
                opens(spec, places)
            [stage] = re.findall("`deltarule ([a-z]+)`", str(error.value))
            assert file.name in str(error.value) and outs(places) == {**made, f"outputs/{name}": spoilt}
            if name in RECORDED:
                with pytest.raises(DataError, match=f"{name} is damaged"):
                    events(places)
        carry_out(spec, places, stage)
        assert file.read_bytes() == whole
        carry_out(spec, places, *ALL[ALL.index(stage) :])
        assert outs(places) == made


def flipped(content, place):
    spoilt = bytearray(content)
    spoilt[place] ^= 1
    return bytes(spoilt)


@pytest.mark.parametrize("name", ["data/about.json", "train/run.json", "validate/about.json"])
def test_what_describes_a_run_counts_byte_by_byte_and_without_its_seal_it_is_of_an_earlier_version(places, name):
    carry_out(experiment(), places, *ALL[:-1])
    file = places.root / "outputs" / name
    whole = file.read_bytes()
    for place in (*range(0, len(whole), 13), *range(-90, 0)):
        file.write_bytes(flipped(whole, place))
        with pytest.raises(DataError, match=f"{file.name} is damaged"):
            read_json(file)
    file.write_bytes(whole.rpartition(b",\n")[0] + b"\n}\n")
    old = read_json(file)
    file.write_bytes(whole)
    assert read_json(file) == old


# Errors of the operating system ----------------------------------------------------------------------------------------

SPEC = "data: {source: digits}\nmodel: {hidden: [300]}\ntrain: {backend: reference, epochs: 1, batch_size: 500}\n"
SPEC += "validation: {baselines: false}\n"


def tree(folder):
    return {path: path.read_bytes() for path in folder.glob("outputs/**/*") if path.is_file()}


def refused(command, capfd):
    """What it says; it must be one line, and exit 1."""
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    told = capfd.readouterr().err
    assert ended.value.code == 1 and told.count("\n") == 1 and "internal error" not in told, told
    return told


def test_a_full_or_read_only_disk_leaves_old_outs_and_is_named_with_its_path_and_what_to_do(small_disk, monkeypatch, capfd):
    monkeypatch.chdir(small_disk)
    (small_disk / "params.yaml").write_text(SPEC)
    for stage in ("split", "train", "validate"):
        carry_out(load(), RunPaths(), stage)
    (small_disk / "rows.csv").write_text("x,y\n" + "1,a\n2,b\n" * 9)
    before = tree(small_disk)
    filler = small_disk.fill(left=20_000)
    for command, name in (("split", ".data/train/X.npy"), ("train", ".train/model.safetensors"), ("validate", ".validate/")):
        done = call("deltarule", command, cwd=small_disk, check=False)  # which may be killed
        told = done.stderr.splitlines()[-1]
        assert done.returncode == 1 and "Traceback" not in done.stderr, done
        assert told.startswith(f"outputs/{name}") and told.endswith(f"No space left on device; {WAYS_OUT[errno.ENOSPC]}")
        assert tree(small_disk) == before
    small_disk.fill()
    told = refused("new own --data rows.csv --target y", capfd)
    assert "No space left on device; make room" in told and not (small_disk / "own").exists()
    filler.unlink()
    assert main_ends("split") == 0 and tree(small_disk) == before
    call("mount", "-o", "remount,ro", small_disk, cwd=small_disk.parent)
    for command in ("split", "train", "new own --data rows.csv --target y"):
        assert re.match(r"\S+: Read-only file system; have the disk mounted for writing", refused(command, capfd))
    call("mount", "-o", "remount,rw", small_disk, cwd=small_disk.parent)


def main_ends(command):
    with pytest.raises(SystemExit) as ended:
        main([command])
    return ended.value.code


def test_a_folder_that_is_deleted_under_way_is_named(tmp_path, monkeypatch, capfd):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "params.yaml").write_text("data: {source: iris}")
    module, iris = sys.modules["pipelines.stages.split"], read(DataSpec(source="iris"))
    monkeypatch.setattr(module, "read", lambda *_: shutil.rmtree(folder) or iris)
    assert re.match(r"\S+: No such file or directory; its folder is gone; restore it, or", refused("split", capfd))


def test_without_the_right_to_write_it_says_whose_business_that_is(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("data: {source: iris}")
    (tmp_path / "outputs").mkdir()
    call("chattr", "+i", tmp_path / "outputs", cwd=tmp_path)
    try:
        told = refused("split", capfd)
    finally:
        call("chattr", "-i", tmp_path / "outputs", cwd=tmp_path)
    assert re.match(r"outputs/\S+: Operation not permitted; give yourself the right to it", told)
