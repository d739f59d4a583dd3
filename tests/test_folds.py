"""Folds: k networks of k folds as one stack. Backends agree: the conformance suite (backends/conformance/folds.py)."""

import numpy as np
import pytest

from backends import draws, get, tasks
from backends.base import Data
from backends.conformance import make_trial
from backends.conformance.folds import FOLDS, in_folds, make_folds
from backends.supervisor import Supervisor, fit


def of_folds(task="multiclass", seeds=(1,), **changes):
    """A trial of each seed in each fold, and the folds' rows."""
    trials = [make_trial(task, fold=f, seed=s, epochs=2, **changes) for s in seeds for f in FOLDS]
    return trials, make_folds(task)


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
        d = tasks.targets("multiclass", own.y_valid, 3)
        assert result.best["val_loss"] == tasks.mean_loss("multiclass", stack.predict(own.X_valid)[0], d)


def test_each_fold_has_the_metrics_of_its_own_validation_rows():
    trials, folds = of_folds()
    measures = {number: lambda outputs, n=number: {"fold": float(n)} for number in FOLDS}
    results = fit(get("reference"), trials, Data.of_folds(folds), metrics=measures)
    assert [result.best["val_fold"] for result in results] == list(FOLDS)


@pytest.mark.parametrize("rows", [1, tasks.ROWS_AT_ONCE, tasks.ROWS_AT_ONCE + 3])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_validation_loss_some_rows_at_a_time_is_that_of_all_at_once_to_the_bit(task, rows):
    rng = np.random.default_rng(rows)
    outputs = 1 if task == "binary" else 3
    logits, y = rng.normal(size=(rows, outputs)).astype(np.float32), rng.integers(0, max(2, outputs), rows)
    assert tasks.validation_loss(task, logits, y) == tasks.mean_loss(task, logits, tasks.targets(task, y, outputs))


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
