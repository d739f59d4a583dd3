"""Curves are scikit-learn's, stay small whatever the number of rows, and weights are counted before and after."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from test_metrics import case

from backends import weights
from backends.spec import Trial
from pipelines.stages import curves, metrics
from pipelines.stages.metrics import Truth, decide, evaluate, wilson
from pipelines.stages.train import histograms

by_task = pytest.mark.parametrize("name", ["binary", "multiclass"])


def parts(name, n=83):
    truth, outputs = case(name, n)
    return truth, metrics.probabilities(truth.task, outputs), outputs


def one_class(scores, positive):
    """(truth, P, outputs) of two classes with these probabilities of the second."""
    p = np.asarray(scores, float)
    return Truth("binary", np.asarray(positive, int), 1), np.stack([1 - p, p], axis=1), np.log(p / (1 - p))[:, None]


@by_task
def test_precision_and_recall_are_scikit_learns_where_recall_or_precision_bends(name):
    from sklearn.metrics import precision_recall_curve

    truth, P, _ = parts(name)
    for c, recall, precision in curves.pr_curves(truth, P):
        theirs = precision_recall_curve(truth.y == c, P[:, c])
        pairs = {(r, p) for p, r in zip(theirs[0], theirs[1], strict=True)}
        assert set(zip(recall, precision, strict=True)) <= pairs
        assert recall[-1] == 1 and (np.diff(recall) >= 0).all()
        # The points left out change nothing of the steps: scikit-learn's average precision comes out.
        area = (np.diff(np.append(0, recall)) * precision).sum()
        theirs_area = -(np.diff(theirs[1]) * theirs[0][:-1]).sum()
        assert area == pytest.approx(theirs_area, rel=1e-12)


@by_task
def test_each_class_is_as_right_as_scikit_learn_says(name):
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    truth, P, outputs = parts(name)
    found = list(curves.by_class(truth, P, outputs))
    theirs = zip(*precision_recall_fscore_support(truth.y, decide(truth.task, outputs)), strict=True)
    for c, (ours, (precision, recall, f1, rows)) in enumerate(zip(found, theirs, strict=True)):
        assert (ours.precision, ours.recall, ours.f1, ours.rows) == pytest.approx((precision, recall, f1, rows))
        assert ours.roc_auc == pytest.approx(roc_auc_score(truth.y == c, P[:, c]))
        assert ours.pr_auc == pytest.approx(average_precision_score(truth.y == c, P[:, c]))
    if name == "binary":
        assert found[1].roc_auc == pytest.approx(evaluate(truth, outputs)["roc_auc"])


def test_what_a_class_does_not_define_is_none():
    truth, P, outputs = one_class([0.1, 0.2, 0.3], [0, 0, 0])
    negative, positive = curves.by_class(truth, P, outputs)
    assert (positive.rows, positive.precision, positive.recall, positive.roc_auc) == (0, None, None, None)
    assert negative.recall == 1 and negative.roc_auc is None
    assert not list(curves.pr_curves(truth, P))


@pytest.mark.parametrize("rows", [1000, 40_000])
def test_a_curve_of_many_rows_has_a_thousand_points_and_the_same_area(rows):
    rng = np.random.default_rng(rows)
    y = rng.random(rows) < 0.3
    truth, P, outputs = one_class(1 / (1 + np.exp(-rng.normal(size=rows) - 1.5 * y)), y)
    [(_, fpr, tpr)], [(_, recall, precision)] = curves.roc_curves(truth, P), curves.pr_curves(truth, P)
    assert max(len(fpr), len(recall)) <= curves.POINTS
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1], recall[-1]) == (0, 0, 1, 1, 1)
    whole = evaluate(truth, outputs)
    assert np.trapezoid(tpr, fpr) == pytest.approx(whole["roc_auc"], abs=5e-4)
    assert (np.diff(np.append(0, recall)) * precision).sum() == pytest.approx(whole["pr_auc"], abs=2e-3)


def test_curves_of_many_classes_have_fewer_points_each():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 100, 20_000)
    z = rng.normal(size=(len(y), 100))
    truth = Truth("multiclass", y, 100)
    P = metrics.probabilities(truth.task, z)
    for found in (curves.roc_curves(truth, P), curves.pr_curves(truth, P)):
        assert sum(len(x) for _, x, _ in found) <= curves.OF_ALL


def test_calibration_has_ten_bins_of_equally_many_rows_with_wilsons_intervals():
    rng = np.random.default_rng(3)
    p = rng.random(503)
    truth, P, outputs = one_class(p, rng.random(503) < p)
    bins = list(curves.calibration(truth, P, outputs))
    assert len(bins) == 10 and {one.rows for one in bins} == {50, 51} and sum(one.rows for one in bins) == 503
    for one in bins:
        inside = (P[:, 1] >= one.least) & (P[:, 1] <= one.greatest)
        assert inside.sum() == one.rows
        assert one.predicted == pytest.approx(P[inside, 1].mean())
        assert one.observed == pytest.approx(truth.y[inside].mean())
        assert (one.observed_low, one.observed_high) == wilson(int(truth.y[inside].sum()), one.rows)
    assert all(a.greatest < b.least for a, b in itertools.pairwise(bins))


def test_equal_probabilities_stay_in_one_bin_so_that_the_order_of_rows_changes_nothing():
    y = np.arange(100) % 2
    p = np.where(np.arange(100) < 70, 0.5, 0.9)
    turned = np.random.default_rng(0).permutation(100)
    one, other = (list(curves.calibration(*one_class(p[order], y[order]))) for order in (np.arange(100), turned))
    assert one == other and [found.rows for found in one] == [70, 30]


def test_of_several_classes_calibration_is_about_the_one_that_is_predicted():
    truth = Truth("multiclass", np.array([0, 1, 2, 2]), 3)
    P = np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.7, 0.2, 0.1], [0.2, 0.2, 0.6]])
    [found] = curves.calibration(truth, P, np.log(P))
    assert (found.rows, found.observed, found.predicted) == (4, 0.75, pytest.approx(0.675))


def test_rows_that_are_not_independent_have_no_interval():
    truth, P, outputs = parts("binary")
    assert {(one.observed_low, one.observed_high) for one in curves.calibration(truth, P, outputs, intervals=False)} == {
        (None, None)
    }


# -- weights ----------------------------------------------------------------------------------------------------------------


def trial(**more):
    return Trial(seed=3, task="multiclass", inputs=20, outputs=4, model={"hidden": [30]}, train={"backend": "reference"}, **more)


def test_every_weight_but_no_bias_is_counted_before_and_after():
    one = trial()
    initial = weights.initial([one])[0]
    rows = list(histograms([(one, initial * 2)]))
    for layer, size in ((1, 20 * 30), (2, 30 * 4)):
        own = [row for row in rows if row[0] == layer]
        assert sum(row[4] for row in own) == sum(row[5] for row in own) == size
        edges = [row[1] for row in own] + [own[-1][2]]
        W = weights.unpack(one, initial)[f"layers.{layer - 1}.weight"].astype(np.float64)
        assert [row[4] for row in own] == np.histogram(W, edges)[0].tolist()
        assert edges[-1] == pytest.approx(2 * np.abs(W).max()) and edges[0] == -edges[-1]
        assert len(own) % 2 == 1 and own[len(own) // 2][3] == pytest.approx(0, abs=1e-12)


def test_weights_of_folds_are_counted_together():
    networks = [(trial(fold=fold), weights.initial([trial(fold=fold)])[0]) for fold in (1, 2, 3)]
    assert sum(row[5] for row in histograms(networks) if row[0] == 1) == 3 * 20 * 30


def test_a_network_of_zeros_has_its_histogram_too():
    one = trial()
    rows = list(histograms([(one, np.zeros_like(weights.initial([one])[0]))]))
    assert max(row[5] for row in rows if row[0] == 1) == 600
