"""The estimators are those of scikit-learn, and `fit` of one is the run that the command line makes on the same rows."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import (
    check_estimator,
    check_methods_subset_invariance,
    check_sample_weight_equivalence_on_dense_data,
)

import deltarule

QUICK = {"hidden": [16], "epochs": 12, "learning_rate": 0.02}
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "split, scaling, batches and the best epoch count rows, and float32 rounds",
    "check_methods_subset_invariance": "float32: a product of fewer rows may add up in another order",
}


def iris():
    X, y = load_iris(return_X_y=True, as_frame=True)
    return X.set_axis(["sepal", "sepal_width", "petal", "petal_width"], axis=1), y.map({0: "setosa", 1: "versi", 2: "virgin"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "backend"),
    [(deltarule.Classifier, "reference"), (deltarule.Regressor, "reference"), (deltarule.Classifier, "lightning")],
)
def test_scikit_learns_own_checks_pass(kind, backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = check_estimator(kind(**QUICK, backend=backend), expected_failed_checks=EXPECTED, on_skip=None)
    assert "check_sample_weight_equivalence_on_dense_data" in {one["check_name"] for one in found if one["status"] == "xfail"}
    assert not os.listdir(tmp_path), "a fit leaves nothing behind"


@pytest.mark.parametrize("kind", [deltarule.Classifier, deltarule.Regressor])
def test_a_weight_is_so_many_rows_in_float64(kind):
    """Without scaling, whose statistics count a row once; where all rows train, in one batch, and the last epoch is the best."""
    exact = {"train.precision": "float64", "data.scaling": "none", "data.scale_target": False}
    slow = {**QUICK, "learning_rate": 1e-3}
    estimator = kind(exact, **slow, backend="reference", batch_size=100, validation_fraction=0)
    check_sample_weight_equivalence_on_dense_data(kind.__name__, estimator)
    check_methods_subset_invariance(kind.__name__, estimator)
    with pytest.raises(AssertionError, match="not equivalent"):
        check_sample_weight_equivalence_on_dense_data(kind.__name__, estimator.set_params(batch_size=4))


def test_probabilities_are_in_the_order_of_classes_whatever_the_spec_calls_positive():
    X, y = iris()
    X, y = X[y != "virgin"], y[y != "virgin"]
    found = deltarule.Classifier({"data.positive": "setosa"}, **QUICK, backend="reference").fit(X, y)
    assert [*found.classes_] == ["setosa", "versi"]
    assert (found.classes_[found.predict_proba(X).argmax(1)] == found.predict(X)).all() and found.score(X, y) > 0.9


def test_fit_is_the_run_that_the_command_makes_on_the_same_rows(tmp_path, deltarule):
    from deltarule import Classifier, Run

    X, y = iris()
    X.assign(species=y).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "params.yaml").write_text(
        "data: {source: t.csv, target: species}\nmodel: {hidden: [8], dropout: 0.2}\n"
        "train: {backend: reference, epochs: 4}\nseed: 3\ntracking: {enabled: false}\n"
    )
    deltarule("run")
    [folder] = (tmp_path / "runs").iterdir()
    run = Run(folder)
    fitted = Classifier(tmp_path / "params.yaml").fit(X, y)
    assert fitted.history_ == run.history
    assert fitted.model_.network.flat.tobytes() == run.model.network.flat.tobytes()
    assert list(fitted.predict(X)[run.predictions["row"]]) == run.predictions["predicted"]
    np.testing.assert_array_equal(fitted.predict_proba(X), run.model.probabilities(X))


def test_without_a_spec_all_rows_train_or_validate_as_files_of_a_source_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X, y = iris()
    X[:100].assign(y=y[:100]).to_csv("train.csv", index=False)
    X[100:].assign(y="setosa").to_csv("test.csv", index=False)
    spec = {
        "data.source": {"train": "train.csv", "test": "test.csv"}, "data.target": "y", "model.hidden": [16],
        "data.split": {"train": 0.4, "valid": 0.1, "test": 0.5}, "train.backend": "reference", "train.epochs": 12,
        "train.optimizer.learning_rate": 0.02,
    }  # fmt: skip
    run = deltarule.run(deltarule.Experiment().override(spec), "run")
    fitted = deltarule.Classifier(**QUICK, backend="reference").fit(X[:100], y[:100])
    assert fitted.history_ == run.history and fitted.model_.network.about.rows["valid"] == 20
    assert fitted.model_.network.flat.tobytes() == run.model.network.flat.tobytes()
    every = clone(fitted).set_params(validation_fraction=0).fit(X, y)
    assert [every.model_.network.about.rows[part] for part in ("train", "valid")] == [150, 150]


def test_each_parameter_is_a_key_of_the_spec_and_stands_above_it():
    given = {
        "hidden": (5, 4), "activation": "tanh", "dropout": np.float64(0.1), "l1": 1e-4, "l2": [0, 0, 1e-3],
        "backend": "reference", "epochs": 2, "batch_size": np.int64(16), "learning_rate": 0.1, "seed": 7,
    }  # fmt: skip
    X, y = iris()
    spec = {"model": {"hidden": [3], "activation": "gelu"}, "train.optimizer": {"name": "sgd", "momentum": 0.5}}
    run = deltarule.Classifier(spec, **given).fit(X, y).model_.network.run["spec"]
    assert run["model"] | {"hidden": [5, 4], "activation": "tanh", "dropout": 0.1} == run["model"]
    assert run["regularization"] == {"l1": 1e-4, "l2": [0, 0, 1e-3]} and run["seed"] == 7
    assert run["train"]["optimizer"] == {"name": "sgd", "learning_rate": 0.1, "momentum": 0.5, "nesterov": False}
    assert (run["train"]["epochs"], run["train"]["batch_size"], run["train"]["backend"]) == (2, 16, "reference")


def test_frames_of_every_kind_are_taken_with_gaps():
    rng = np.random.default_rng(0)
    X = pandas.DataFrame(
        {
            "y": rng.normal(size=90),
            "colour": pandas.Categorical([("red", "green", None)[place % 3] for place in range(90)]),
            "day": pandas.date_range("2024-01-01", periods=90),
            "sample_weight": pandas.array([1, None, 3] * 30, "Int64"),
        }
    )
    y = pandas.Series(np.where(X["colour"] == "red", 1.5, -1.5) + rng.normal(0, 0.1, 90), name="y")
    fitted = deltarule.Regressor(**{**QUICK, "epochs": 40}, backend="reference").fit(X, y, sample_weight=np.ones(90))
    assert fitted.score(X, y) > 0.8 and list(fitted.feature_names_in_) == list(X)
    assert set(fitted.model_.features) == {"y", "colour", "day", "sample_weight"}
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(X.rename(columns={"day": "date"}))


def test_weights_are_those_of_the_spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X, y = iris()
    weights = np.arange(150) % 7 / 3
    spec = deltarule.Experiment().override({"model.hidden": [16], "train.epochs": 3, "train.backend": "reference"})
    given = spec.with_data(X.assign(w=weights), y, target="y").override("data.weight", "w")
    fitted = deltarule.Classifier(spec).fit(X, y, sample_weight=weights)
    assert fitted.history_ == deltarule.run(given, "run").history != deltarule.Classifier(spec).fit(X, y).history_


@pytest.mark.parametrize("labels", [[10, 9, 100], [True, False], ["b", "a b", "c"], [0.5, 1.5, 2.0]])
def test_labels_come_back_as_they_were(labels):
    y = np.array(labels)[np.arange(60) % len(labels)]
    if y.dtype.kind == "f":
        y = y.astype("U3")
    X = np.column_stack([y == label for label in np.unique(y)]) + np.random.default_rng(0).normal(0, 0.1, (60, len(labels)))
    fitted = deltarule.Classifier(**{**QUICK, "epochs": 60}, backend="reference").fit(X, y)
    assert list(fitted.classes_) == list(np.unique(y)) and fitted.classes_.dtype == y.dtype
    assert fitted.score(X, y) == 1.0
    np.testing.assert_array_equal(fitted.classes_[fitted.predict_proba(X).argmax(axis=1)], fitted.predict(X))


def test_grid_search_pipelines_and_cross_validation_take_them():
    X, y = iris()
    tried = {"learning_rate": [1e-6, 0.02], "hidden": [[16], (8, 8)]}
    grid = GridSearchCV(deltarule.Classifier(**QUICK, backend="reference"), tried, cv=2)
    assert grid.fit(X, y).best_params_["learning_rate"] == 0.02
    quick = {**QUICK, "epochs": 30}
    chain = make_pipeline(StandardScaler(), deltarule.Classifier(deltarule.Experiment(), **quick, backend="reference"))
    assert cross_val_score(chain, X, y, cv=3).mean() > 0.9
    again = pickle.loads(pickle.dumps(grid.best_estimator_))
    np.testing.assert_array_equal(again.predict_proba(X), grid.best_estimator_.predict_proba(X))


def test_several_targets_are_columns():
    X, y = load_diabetes(return_X_y=True)
    fitted = deltarule.Regressor(**QUICK, backend="reference").fit(X, np.column_stack([y, -y]))
    assert fitted.predict(X).shape == (442, 2) and fitted.score(X, np.column_stack([y, -y])) > 0.3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dropout": 1.5}, r"model\.dropout must be a number in \[0, 1\)"),
        ({"backend": "kears"}, "did you mean keras"),
        ({"validation_fraction": 1.0}, r"validation_fraction must be in \[0, 1\), got 1\.0"),
        ({"spec": "nothing.yaml"}, "no such file"),
    ],
)
def test_what_cannot_be_is_told_by_fit(changes, told):
    X, y = iris()
    with pytest.raises(deltarule.SpecError if "must" not in told or "model" in told else ValueError, match=told):
        deltarule.Classifier(**{**QUICK, "backend": "reference", **changes}).fit(X, y)


@pytest.mark.parametrize(("weights", "told"), [([-1.0] + [1] * 149, "at least zero"), ([np.nan] + [1] * 149, "finite")])
def test_weights_that_are_none_are_refused(weights, told):
    with pytest.raises(ValueError, match=told):
        deltarule.Classifier(**QUICK, backend="reference").fit(*iris(), sample_weight=weights)
