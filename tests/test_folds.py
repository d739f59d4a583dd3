"""Folds: k networks of k folds as one stack. Backends agree: the conformance suite (backends/conformance/runs.py)."""

import csv
import statistics

import numpy as np
import pytest

from backends import draws, get, losses, supervisor, weights
from backends.base import Data
from backends.conformance import make_trial
from backends.conformance.runs import FOLDS, in_folds, make_folds
from backends.supervisor import Supervisor, fit
from pipelines import stages
from pipelines.api.evaluate import evaluate
from pipelines.api.results import Run
from pipelines.data import About, read
from pipelines.spec import Experiment, SpecError, dump
from pipelines.stages import RunPaths, folds
from pipelines.stages.files import read_json


def of_folds(task="multiclass", seeds=(1,), **changes):
    """A trial of each seed in each fold, and the folds' rows."""
    trials = [make_trial(task, fold=f, seed=s, epochs=2, **changes) for s in seeds for f in FOLDS]
    return trials, make_folds(task)


def test_folds_beyond_the_memory_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec, places = Experiment().override({"data.source": "iris", "data.split.folds": 3}), RunPaths(tmp_path)
    stages.split(spec, places)
    monkeypatch.setattr("pipelines.spec.to_trial.memory", lambda: 600_000)
    with pytest.raises(SpecError, match=r"networks that train together \(folds, seeds\) must be at most [12], what .* got 3"):
        stages.train(spec, places)


# -- dealing --------------------------------------------------------------------------------------------------------------


def test_each_fold_is_dealt_its_own_rows_in_the_order_and_with_the_noise_of_its_seed():
    trials, folds = of_folds(seeds=(1, 2), dropout=0.2)
    supervisor = Supervisor(get("reference"), trials, Data.of_folds(folds))
    assert supervisor.stack.streams == [(seed, fold) for seed in (1, 2) for fold in FOLDS]
    chunk = next(supervisor.chunks())
    for stream, (seed, fold) in enumerate(supervisor.stack.streams):
        order = draws.row_order(seed, 0, 70)[: chunk.rows[stream].size]
        np.testing.assert_array_equal(chunk.rows[stream].ravel(), order + 70 * FOLDS.index(fold))
    np.testing.assert_array_equal(chunk.noise[0], chunk.noise[2])
    assert (chunk.noise[0] != chunk.noise[3]).any()


def test_the_validation_loss_is_that_of_the_folds_own_rows():
    trials, folds = of_folds()
    for trial, result in zip(trials, fit(get("reference"), trials, Data.of_folds(folds)), strict=True):
        stack = get("reference").stack([trial])
        stack.load({"weights": result.weights[None]})
        own = folds[trial.fold]
        d = losses.targets("multiclass", own.y_valid, 3)
        assert result.best["val_loss"] == losses.mean_loss("multiclass", stack.predict(own.X_valid)[0], d)


def test_each_fold_has_the_metrics_of_its_own_validation_rows():
    trials, folds = of_folds()
    measures = {number: lambda outputs, n=number: {"fold": float(n)} for number in FOLDS}
    results = fit(get("reference"), trials, Data.of_folds(folds), metrics=measures)
    assert [result.best["val_fold"] for result in results] == list(FOLDS)


@pytest.mark.parametrize("rows", [1, losses.ROWS_AT_ONCE, losses.ROWS_AT_ONCE + 3])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_validation_loss_some_rows_at_a_time_is_that_of_all_at_once_to_the_bit(task, rows):
    rng = np.random.default_rng(rows)
    outputs = 1 if task == "binary" else 3
    logits, y = rng.normal(size=(rows, outputs)).astype(np.float32), rng.integers(0, max(2, outputs), rows)
    assert losses.validation_loss(task, logits, y) == losses.mean_loss(task, logits, losses.targets(task, y, outputs))


# -- what does not fit ----------------------------------------------------------------------------------------------------


def test_folds_of_other_sizes_are_no_one_stack():
    folds = make_folds("binary")
    one = folds[2]
    with pytest.raises(ValueError, match="must have equally many rows and inputs"):
        Data.of_folds({**folds, 2: Data(one.X[:-1], one.y[:-1], one.X_valid, one.y_valid)})
    with pytest.raises(ValueError, match="2 folds must have equally many validation rows, got 33 of all together"):
        Data(*(np.zeros((n, 3)) for n in (70, 70, 33, 33)), folds=(1, 2))


def test_trials_of_folds_do_not_train_on_data_without():
    with pytest.raises(ValueError, match="fold must be one of the data's, None, got 2"):
        get("reference").stack(in_folds([make_trial("binary")]), Data(*(np.zeros((4, 7)), np.zeros(4)) * 2))


# -- the stages -----------------------------------------------------------------------------------------------------------

K = 3


def experiment(source="wine", /, **changes):
    """Small, on the reference; the folds of wine without strata do not have equally many rows: two stacks."""
    small = {
        "data": {"source": source, "split": {"folds": K, "stratify": False}}, "model": {"hidden": [5]},
        "train": {"backend": "reference", "epochs": 3, "optimizer": {"name": "adam", "learning_rate": 0.02}},
        "validation": {"baselines": False},
    }  # fmt: skip
    return Experiment.model_validate(small).override({name.replace("__", "."): value for name, value in changes.items()} or {})


@pytest.fixture
def places(tmp_path):
    return RunPaths(tmp_path / "root", base=tmp_path)


def carry_out(spec, places, *names):
    """These stages, in order; what the last one returned."""
    return [getattr(stages, name)(spec, places) for name in names or ("split", "train", "validate", "test")][-1]


def outs(places):
    folder = places.root / "outputs"
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_folds_network_is_the_one_that_its_rows_alone_give(places):
    spec = experiment(train__class_weights="balanced", model__dropout=0.2)
    carry_out(spec, places, "split", "train")
    about, saved = About.load(places.about), weights.load_all(places.model)
    assert [one.fold for one, _ in saved] == [1, 2, 3]
    for one, flat in saved:
        known = about.fold(one.fold)
        counts = list(known.class_counts["train"].values())
        assert one.class_weights == losses.class_weights(counts, None)
        learn, choose = (known.open(places.data, part) for part in ("train", "valid"))
        (alone,) = fit(get("reference"), [one], Data(learn.X, learn.y, choose.X, choose.y, (one.fold,)))
        np.testing.assert_array_equal(flat, alone.weights)


def test_folds_of_other_sizes_are_other_stacks_and_stand_in_one_history(places, monkeypatch):
    widths, before = [], folds.fit

    def counted(backend, trials, *rest, **more):
        widths.append(len(trials))
        return before(backend, trials, *rest, **more)

    monkeypatch.setattr(folds, "fit", counted)
    carry_out(experiment(), places, "split", "train")
    assert widths == [2, 1]
    history = table(places.history)
    assert [(row["fold"], row["epoch"]) for row in history] == [(str(f), str(e)) for f in (1, 2, 3) for e in (1, 2, 3)]
    run = read_json(places.run)
    assert [one["fold"] for one in run["folds"]] == [1, 2, 3] and run["message"] == "completed 3 epochs"


def test_metrics_are_means_and_sds_over_folds_and_every_row_is_predicted_by_the_network_that_did_not_see_it(places):
    found = carry_out(experiment(), places, "split", "train", "validate")
    each = [float(row["accuracy"]) for row in table(places.report("validate") / "folds.csv")]
    assert found["accuracy"] == statistics.fmean(each) and found["accuracy_sd"] == statistics.stdev(each)
    trained = read_json(places.trained / "metrics.json")
    assert trained["best_val_loss"] == pytest.approx(found["loss"], rel=1e-6)
    about, rows = About.load(places.about), table(places.report("validate") / "predictions.csv")
    assert len({row["row"] for row in rows}) == len(rows) == about.rows["valid"]
    for one in about.folds:
        own = one.open(places.data, "valid").rows.tolist()
        assert [int(row["row"]) for row in rows if row["fold"] == str(one.number)] == own


def test_of_regression_rows_of_all_folds_are_in_the_targets_own_units(places):
    carry_out(experiment("diabetes"), places, "split", "train", "validate")
    rows = table(places.report("validate") / "predictions.csv")
    label, predicted = (next(name for name in rows[0] if name.startswith(start)) for start in ("label", "predicted"))
    squares = {f: [(float(r[label]) - float(r[predicted])) ** 2 for r in rows if r["fold"] == f] for f in "123"}
    for row in table(places.report("validate") / "folds.csv"):
        assert float(row["rmse"]) == pytest.approx(statistics.fmean(squares[row["fold"]]) ** 0.5)
    assert min(float(r[label]) for r in rows) > 20  # as they stand in the source


def test_thresholds_judge_the_mean_over_folds(places):
    spec = experiment()
    found = carry_out(spec, places, "split", "train", "validate")
    worst = min(float(row["accuracy"]) for row in table(places.report("validate") / "folds.csv"))
    assert worst < found["accuracy"]
    between = spec.override("thresholds", {"accuracy": {"min": (worst + found["accuracy"]) / 2}})
    stages.validate(between, places)
    with pytest.raises(stages.ThresholdError, match="accuracy must be at least"):
        stages.validate(spec.override("thresholds", {"accuracy": {"min": found["accuracy"] + 1e-9}}), places)


def test_each_network_judges_all_test_rows_with_its_own_preprocessing(places):
    found = carry_out(experiment(), places)
    about, each = About.load(places.about), table(places.report("test") / "folds.csv")
    assert [int(row["rows"]) for row in each] == [about.rows["test"]] * K
    assert found["accuracy"] == statistics.fmean(float(row["accuracy"]) for row in each)
    assert not any(name.endswith("_low") for name in found) and found["openings"] == 1


def test_killed_in_its_second_stack_a_run_goes_on_there_and_leaves_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "CHECKPOINT_SECONDS", 0.0)
    whole, torn = (RunPaths(tmp_path / name, base=tmp_path) for name in ("whole", "torn"))
    for place in (whole, torn):
        stages.split(experiment(), place)
    stages.train(experiment(), whole)

    def stop(record):
        if (record["fold"], record["epoch"]) == (3, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.train(experiment(), torn, stop)
    seen = []
    stages.train(experiment(), torn, lambda record: seen.append((record["fold"], record["epoch"])))
    assert seen == [(3, 2), (3, 3)]  # nothing of the first stack, folds 1 and 2
    assert outs(torn) == outs(whole)
    assert not list((torn.root / ".deltarule").glob("checkpoint*"))


def test_one_fold_that_diverges_holds_the_run_and_is_named(places):
    wild = experiment(train__optimizer={"name": "sgd", "learning_rate": 1e20})
    stages.split(wild, places)
    with pytest.raises(stages.StageError, match="the run of fold 1 diverged at step"):
        stages.train(wild, places)
    assert not places.model.exists() and read_json(places.run)["ended"] == "diverged"


# -- what is done with them -----------------------------------------------------------------------------------------------


def test_as_a_model_they_say_the_mean_of_their_probabilities(places):
    spec = experiment()
    carry_out(spec, places, "split", "train")
    (places.root / "params.yaml").write_text(dump(spec))
    model = Run(places.root).model
    X = read(spec.data, places.base)
    rows = {name: X.fetch(name).values[:20] for name in model.features}
    P = np.mean([one.probabilities(rows) for one in model.folds], axis=0)
    np.testing.assert_array_equal(model.probabilities(rows), P)
    np.testing.assert_array_equal(model.predict(rows), np.array(model.classes)[P.argmax(1)])
    assert len(model.folds) == K and (model.folds[0].probabilities(rows) != P).any()


def test_as_a_model_of_a_regression_they_say_the_mean_of_their_targets(places):
    spec = experiment("diabetes")
    carry_out(spec, places, "split", "train")
    (places.root / "params.yaml").write_text(dump(spec))
    model = Run(places.root).model
    X = read(spec.data, places.base)
    rows = {name: X.fetch(name).values[:20] for name in model.features}
    np.testing.assert_array_equal(model.predict(rows), np.mean([one.predict(rows) for one in model.folds], axis=0))
    with pytest.raises(ValueError, match="no class probabilities"):
        model.probabilities(rows)


def test_under_several_seeds_a_seed_is_worth_its_mean_over_folds(places):
    spec = experiment()
    found = carry_out(spec, places, "split", "train", "validate")
    report = evaluate(spec, places, seeds=2)
    assert report.each["validate"]["accuracy"][0] == pytest.approx(found["accuracy"])
    assert report.seeds == (0, 1) and report.parts["validate"]["accuracy"].count == 2


def test_a_trial_of_a_study_is_worth_its_mean_over_seeds_and_folds(places, tmp_path):
    pytest.importorskip("optuna")
    from pipelines.search import search

    space = {"model.dropout": {"choices": [0.0]}}
    spec = experiment(search__space=space, search__seeds=2, search__sampler="grid", search__engine="here")
    (tmp_path / "study").mkdir()
    record = search(spec, trials=1, project=tmp_path / "study")
    values = []
    for seed in (0, 1):
        carry_out(spec.alone().override({"model.dropout": 0.0, "seed": seed}), places, "split", "train")
        values.append(read_json(places.trained / "metrics.json")["best_val_loss"])
    assert record.trials[0].values[0] == pytest.approx(statistics.fmean(values), rel=1e-6)


def test_parity_refuses_folds_with_a_way_out(tmp_path):
    from pipelines.check.case import Case

    with pytest.raises(SpecError, match="must be null for deltarule parity, which compares one network, got 3"):
        Case.make(tmp_path / "case", experiment(), tmp_path, 5, ("float64",))
