"""Metrics from arrays: what each is, that the kernels are scikit-learn's, intervals that cover, and rows that define none."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from pipelines.data.preprocess import TargetScale
from pipelines.spec import HIGHER_IS_BETTER, higher_is_better
from pipelines.stages.curves import roc_curves
from pipelines.stages.metrics import (
    Truth,
    decide,
    epoch_metrics,
    evaluate,
    intervals,
    kernel,
    names,
    probabilities,
    resamples,
    wilson,
)

SCALE = TargetScale((100.0, -3.0), (20.0, 0.5))


def case(name, n=83, seed=0):
    """(truth, outputs) of a network that is right more often than not."""
    rng = np.random.default_rng(seed)
    if name == "regression":
        y = rng.normal(size=(n, 2))
        return Truth("regression", y, 2, ("weight", "waist"), SCALE), y + rng.normal(size=y.shape) / 2
    if name == "one target":
        y = rng.normal(size=(n, 1))
        return Truth("regression", y, 1, ("weight",), TargetScale((5.0,), (2.0,))), y + rng.normal(size=y.shape) / 2
    classes = {"binary": 2, "multiclass": 4}[name]
    y = rng.integers(0, classes, n)
    z = np.round(rng.normal(size=(n, classes)), 1)  # rounded, so that some scores tie
    z[np.arange(n), y] += 1
    return (Truth("binary", y, 1), z[:, 1:] - z[:, :1]) if name == "binary" else (Truth("multiclass", y, 4), z)


CASES = ("binary", "multiclass", "regression", "one target")
by_case = pytest.mark.parametrize("name", CASES)


@by_case
def test_every_metric_of_the_task_is_there(name):
    truth, outputs = case(name)
    found = evaluate(truth, outputs)
    assert set(found) == set(names(truth))
    assert all(type(value) is float for value in found.values())


def by_scikit_learn(truth, outputs):
    """Every metric that scikit-learn has, as it computes them."""
    from sklearn import metrics

    if truth.task == "regression":
        y, predicted = truth.own, truth.predicted(outputs)
        each = {
            "rmse": metrics.root_mean_squared_error(y, predicted, multioutput="raw_values"),
            "mae": metrics.mean_absolute_error(y, predicted, multioutput="raw_values"),
            "r2": metrics.r2_score(y, predicted, multioutput="raw_values"),
        }
        found = {name: values.mean() for name, values in each.items()}
        own = {f"{name}.{target}": v for name, values in each.items() for target, v in zip(truth.names, values, strict=True)}
        return found if truth.outputs == 1 else found | own
    y, P, predicted = truth.y, probabilities(truth.task, outputs), decide(truth.task, outputs)
    judged = [1] if truth.task == "binary" else range(P.shape[1])
    of_positive = {"f1": metrics.f1_score, "precision": metrics.precision_score, "recall": metrics.recall_score}
    return {
        **({name: score(y, predicted) for name, score in of_positive.items()} if truth.task == "binary" else {}),
        "accuracy": metrics.accuracy_score(y, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted),
        "macro_f1": metrics.f1_score(y, predicted, average="macro"),
        "log_loss": metrics.log_loss(y, P, labels=np.arange(P.shape[1])),
        "brier": metrics.brier_score_loss(y, P, labels=np.arange(P.shape[1])),
        "roc_auc": np.mean([metrics.roc_auc_score(y == c, P[:, c]) for c in judged]),
        "pr_auc": np.mean([metrics.average_precision_score(y == c, P[:, c]) for c in judged]),
    }


@by_case
def test_the_metrics_are_scikit_learns_numbers(name):
    truth, outputs = case(name)
    ours, theirs = evaluate(truth, outputs), by_scikit_learn(truth, outputs)
    assert set(ours) - set(theirs) <= {"loss", "calibration_error"}
    for metric, value in theirs.items():
        assert ours[metric] == pytest.approx(value, rel=1e-12, abs=1e-14), metric


@pytest.mark.parametrize("name", ["binary", "multiclass"])
def test_the_roc_curves_are_scikit_learns(name):
    from sklearn.metrics import roc_curve

    truth, outputs = case(name)
    P = probabilities(truth.task, outputs)
    curves = list(roc_curves(truth, P))
    assert [c for c, _, _ in curves] == ([1] if name == "binary" else [0, 1, 2, 3])
    for c, fpr, tpr in curves:
        theirs = roc_curve(truth.y == c, P[:, c])
        np.testing.assert_allclose(fpr, theirs[0], rtol=1e-15)
        np.testing.assert_allclose(tpr, theirs[1], rtol=1e-15)


@by_case
def test_a_kernel_of_counts_is_the_metric_of_the_rows_repeated(name):
    truth, outputs = case(name)
    [W] = [block[:3] for block in resamples(len(outputs), 3)]
    ours = kernel(truth, outputs)(W)
    for r in range(3):
        rows = np.repeat(np.arange(len(outputs)), W[r].astype(int))
        theirs = evaluate(Truth(truth.task, truth.y[rows], truth.outputs, truth.names, truth.scale), outputs[rows])
        for metric, value in theirs.items():
            assert ours[metric][r] == pytest.approx(value, rel=1e-10), metric


def test_numbers_by_hand_for_two_classes():
    truth = Truth("binary", np.array([0, 0, 1, 1]), 1)
    found = evaluate(truth, np.log([[1 / 9], [3.0], [3 / 2], [9.0]]))  # p = .1, .75, .6, .9
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["roc_auc"] == 0.75
    assert found["pr_auc"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["brier"] == pytest.approx((0.01 + 0.5625 + 0.16 + 0.01) / 4)
    assert [found["loss"], found["log_loss"]] == pytest.approx([-np.log([0.9, 0.25, 0.6, 0.9]).mean()] * 2)
    # Confidences .9, .75, .6, .9 in bins (.867, .933], (.733, .8], (.533, .6], (.867, .933].
    assert found["calibration_error"] == pytest.approx((2 * abs(1 - 0.9) + abs(0 - 0.75) + abs(1 - 0.6)) / 4)


def test_a_probability_of_one_half_is_predicted_positive():
    assert decide("binary", np.array([[0.0], [-1e-9], [2.0]])).tolist() == [1, 0, 1]


def test_regression_is_reported_in_the_targets_own_units_and_its_loss_in_the_trainings_scale():
    truth = Truth("regression", np.array([[0.0, 0], [1, 1]]), 2, ("weight", "waist"), SCALE)
    found = evaluate(truth, np.array([[0.5, 0], [0.5, 1]]))
    assert found["loss"] == pytest.approx(0.125)
    assert found["rmse.weight"] == pytest.approx(0.5 * 20)
    assert found["rmse.waist"] == 0
    assert found["rmse"] == pytest.approx(5)
    assert (found["r2.weight"], found["r2.waist"], found["r2"]) == pytest.approx((0, 1, 0.5))


def test_one_target_has_no_names_of_its_own():
    assert names(case("one target")[0]) == ("loss", "rmse", "mae", "r2")


def test_a_calibrated_network_has_a_small_calibration_error_and_a_boastful_one_a_large_one():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 20_000)
    y = (rng.uniform(size=p.size) < p).astype(int)
    for claimed, low, high in ((p, 0, 0.02), (np.full(p.size, 0.999), 0.2, 0.3)):
        found = evaluate(Truth("binary", y, 1), np.log(claimed / (1 - claimed))[:, None])
        assert low <= found["calibration_error"] < high


def test_confidence_has_fifteen_bins():
    p = np.array([0.62, 0.68])  # two of fifteen bins, one of ten
    found = evaluate(Truth("binary", np.array([1, 0]), 1), np.log(p / (1 - p))[:, None])
    assert found["calibration_error"] == pytest.approx((0.38 + 0.68) / 2)


# Rows that do not define a metric --------------------------------------------------------------------------------------


def test_one_class_alone_has_no_ranking_and_no_warning():
    truth = Truth("binary", np.ones(9, dtype=int), 1)
    outputs = np.linspace(-1, 2, 9)[:, None]
    absent = {"roc_auc", "pr_auc"}
    assert set(names(truth)) - set(evaluate(truth, outputs)) == absent
    assert set(names(truth)) - set(intervals(truth, outputs)) == absent
    assert not list(roc_curves(truth, probabilities(truth.task, outputs)))


def test_a_class_that_no_row_is_of_is_left_out_of_the_means():
    truth, outputs = case("multiclass")
    present = truth.y != 3
    found = evaluate(Truth("multiclass", truth.y[present], 4), outputs[present])
    from sklearn.metrics import recall_score, roc_auc_score

    y, P = truth.y[present], probabilities(truth.task, outputs)[present]
    each = [roc_auc_score(y == c, P[:, c]) for c in range(3)]
    assert found["roc_auc"] == pytest.approx(np.mean(each))
    recall = recall_score(y, decide("multiclass", outputs[present]), labels=[0, 1, 2], average="macro")
    assert found["balanced_accuracy"] == pytest.approx(recall)


def test_a_constant_target_has_no_r2_but_the_others_do():
    y = np.stack([np.zeros(8), np.arange(8.0)], axis=1)
    truth = Truth("regression", y, 2, ("weight", "waist"), SCALE)
    outputs = y + 0.1
    absent = {"r2", "r2.weight"}
    assert set(names(truth)) - set(evaluate(truth, outputs)) == absent
    assert set(names(truth)) - set(intervals(truth, outputs)) == absent
    assert set(names(truth)) - {"loss"} - set(epoch_metrics(truth)(outputs)) == absent


def test_one_row_is_enough_for_no_crash():
    for truth, outputs in (case(name, n=1) for name in CASES):
        evaluate(truth, outputs)
        intervals(truth, outputs)
        epoch_metrics(truth)(outputs)


# Each epoch ------------------------------------------------------------------------------------------------------------


@by_case
def test_an_epochs_metrics_are_those_of_the_report(name):
    truth, outputs = case(name)
    report = evaluate(truth, outputs)
    for monitor in names(truth):
        found = epoch_metrics(truth, monitor)(outputs)
        assert monitor == "loss" or monitor in found
        assert found == pytest.approx({metric: report[metric] for metric in found}, rel=1e-12)
    cheap = {"accuracy"} if truth.task != "regression" else set(names(truth)) - {"loss"}
    assert set(epoch_metrics(truth)(outputs)) == cheap


def test_metrics_need_no_scikit_learn():
    code = """
import sys, numpy as np
from pipelines.stages.curves import roc_curves
from pipelines.stages.metrics import Truth, epoch_metrics, evaluate, intervals, probabilities
truth, outputs = Truth("binary", np.array([0, 1, 1]), 1), np.array([[1.0], [2.0], [0.5]])
epoch_metrics(truth, "roc_auc")(outputs)
evaluate(truth, outputs), intervals(truth, outputs), list(roc_curves(truth, probabilities(truth.task, outputs)))
assert not {"sklearn", "scipy", "pandas", "pyarrow"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_never_said_to_be_of_the_positive_class_has_no_precision_and_a_recall_of_0():
    truth, outputs = Truth("binary", np.array([0, 1, 1]), 1), np.full((3, 1), -1.0)
    assert [evaluate(truth, outputs)[name] for name in ("f1", "precision", "recall")] == [0, 0, 0]
    assert epoch_metrics(truth, "precision")(outputs)["precision"] == 0
    assert intervals(truth, outputs)["precision"] == (0, 0)
    with pytest.raises(ValueError, match="f1 needs validation rows of two classes"):
        epoch_metrics(Truth("binary", np.ones(5, dtype=int), 1), "f1")


def test_a_monitor_that_there_is_not_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"must be a metric of binary, got 'rmse'; known are: loss, accuracy"):
        epoch_metrics(case("binary")[0], "rmse")
    with pytest.raises(ValueError, match="roc_auc needs validation rows of two classes"):
        epoch_metrics(Truth("binary", np.ones(5, dtype=int), 1), "roc_auc")

    with pytest.raises(ValueError, match="r2 needs targets that vary"):
        epoch_metrics(Truth("regression", np.full((5, 1), 0.1), 1, ("y",)), "r2")


def test_which_metrics_grow_as_they_get_better():
    assert sorted(HIGHER_IS_BETTER) == [
        "accuracy", "balanced_accuracy", "f1", "macro_f1", "pr_auc", "precision", "r2", "recall", "roc_auc"
    ]  # fmt: skip
    assert higher_is_better("r2.waist") and not higher_is_better("rmse.r2")  # a target may be called r2


@pytest.mark.parametrize("name", ["binary", "multiclass", "regression"])
def test_a_better_network_moves_every_metric_to_its_better_side(name):
    truth, outputs = case(name, n=400)
    target = np.eye(4)[truth.y] if name == "multiclass" else truth.y.reshape(len(truth.y), -1)
    better = outputs + 1.5 * target if name == "multiclass" else outputs * 0.2 + 0.8 * target
    if name == "binary":
        better = outputs + 1.5 * (2 * target - 1)
    before, after = evaluate(truth, outputs), evaluate(truth, better)
    for metric in set(before) - {"calibration_error"}:
        assert (after[metric] > before[metric]) == higher_is_better(metric), metric


# Intervals -------------------------------------------------------------------------------------------------------------


def test_wilson_is_the_textbooks():
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-7)  # statsmodels, method "wilson"
    assert wilson(0, 10) == pytest.approx((0, 0.2775328), abs=1e-7)
    assert wilson(10, 10)[1] == 1  # and not the float before it


@by_case
def test_an_interval_holds_its_metric(name):
    truth, outputs = case(name, n=200)
    found, pairs = evaluate(truth, outputs), intervals(truth, outputs)
    assert set(pairs) == set(found)
    for metric in set(found) - {"calibration_error"}:  # biased upwards in a resample: Kumar et al. 2019
        low, high = pairs[metric]
        assert low < found[metric] < high, metric


def test_intervals_are_the_same_each_time_and_do_not_depend_on_blocks(monkeypatch):
    truth, outputs = case("multiclass")
    first = intervals(truth, outputs)
    assert intervals(truth, outputs) == first
    monkeypatch.setattr("pipelines.stages.metrics.BLOCK", 7 * len(outputs))
    again = intervals(truth, outputs)
    assert all(again[metric] == pytest.approx(pair, rel=1e-12) for metric, pair in first.items())


def test_a_resample_holds_as_many_rows_as_there_are_each_equally_often():
    W = np.concatenate(list(resamples(50, 4000)))
    assert W.shape == (4000, 50)
    assert (W.sum(1) == 50).all()
    assert abs(W.mean(0) - 1).max() < 5 * math.sqrt(0.98 / 4000)
    assert abs(W.var() - 0.98) < 0.02  # binomial: n · 1/n · (1 - 1/n)


@pytest.mark.slow
def test_of_many_rows_fewer_resamples_are_drawn_and_the_interval_stays(monkeypatch):
    rng = np.random.default_rng(1)
    truth, outputs = Truth("binary", rng.integers(0, 2, 30_000), 1), rng.normal(size=(30_000, 1))
    drawn = []
    monkeypatch.setattr("pipelines.stages.metrics.resamples", lambda rows, count: drawn.append(count) or resamples(rows, count))
    found = intervals(truth, outputs)["loss"]
    monkeypatch.setattr("pipelines.stages.metrics.DRAWN", 10**9)
    assert np.diff(found) == pytest.approx(np.diff(intervals(truth, outputs)["loss"]), rel=0.15)
    assert drawn == [333, 1000]


@pytest.mark.slow
def test_95_percent_of_intervals_cover_the_truth():
    covered = {"rmse": 0, "mae": 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        truth = Truth("regression", np.zeros((80, 1)), 1, ("y",))
        pairs = intervals(truth, rng.normal(size=(80, 1)))
        for metric, true in (("rmse", 1), ("mae", math.sqrt(2 / math.pi))):
            covered[metric] += pairs[metric][0] <= true <= pairs[metric][1]
    assert all(0.88 <= count / 200 <= 0.99 for count in covered.values()), covered
