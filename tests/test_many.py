"""Many experiments at once: each as if it were alone, in the order given, with its weights at three times."""

from __future__ import annotations

import numpy as np
import pytest

import deltarule
from pipelines.api.results import load_networks

SMALL = {"data.source": "iris", "model.hidden": [6, 5], "train.epochs": 3, "train.batch_size": 32, "train.backend": "reference"}


def experiment(**changes):
    return deltarule.Experiment().override({**SMALL, "train.optimizer.learning_rate": 0.01, **changes})


def test_each_network_is_as_it_would_be_alone_and_comes_in_the_order_given(tmp_path):
    asked = [
        experiment(**{"train.backend": "lightning", "model.activation": "tanh", "seed": 1}),
        experiment(**{"model.hidden": [4], "train.epochs": 2}),
        experiment(**{"train.backend": "lightning", "regularization.l1": 1e-2, "model.dropout": 0.3}),
        experiment(**{"data.scaling": "minmax"}),
        experiment(),
    ]
    heard = []
    found = deltarule.train_many(asked, progress=lambda *counts: heard.append(counts))
    assert [one.experiment for one in found] == asked
    assert heard[-1] == (5, 5) and len(heard) == 4, "two of structure, data and backend share a stack"
    for number, (one, spec) in enumerate(zip(found, asked, strict=True)):
        run = deltarule.run(spec, tmp_path / str(number))
        assert one.history.keys() == run.history.keys()
        for name, values in one.history.items():
            np.testing.assert_allclose(values, run.history[name], rtol=1e-4, atol=1e-6, err_msg=name)
        [network] = load_networks(spec, run.places)
        flat = np.concatenate([values.ravel() for values in one.best.values()])
        np.testing.assert_allclose(flat, network.flat, rtol=1e-4, atol=1e-5)


def test_weights_are_there_before_at_the_best_and_after_the_last_epoch():
    [one] = deltarule.train_many([experiment(**{"train.epochs": 5, "train.optimizer.learning_rate": 0.5})])
    assert {name: values.shape for name, values in one.initial.items()} == {
        "layers.0.weight": (4, 6), "layers.0.bias": (6,), "layers.1.weight": (6, 5), "layers.1.bias": (5,),
        "layers.2.weight": (5, 3), "layers.2.bias": (3,),
    }  # fmt: skip
    assert not one.initial["layers.0.bias"].any()
    assert one.best_epoch < 5, "the steps are too large for the last epoch to be the best"
    assert not np.array_equal(one.best["layers.0.weight"], one.last["layers.0.weight"])
    [short] = deltarule.train_many([experiment(**{"train.epochs": one.best_epoch, "train.optimizer.learning_rate": 0.5})])
    np.testing.assert_array_equal(short.last["layers.0.weight"], one.best["layers.0.weight"])
    beside = deltarule.train_many([one.experiment.override("seed", 9), one.experiment])[1]
    np.testing.assert_array_equal(beside.last["layers.0.weight"], one.last["layers.0.weight"])


def test_the_error_signal_before_training_is_that_of_the_initial_weights():
    asked = [experiment(**{"model.activation": name}) for name in ("tanh", "sigmoid")]
    tanh, sigmoid = deltarule.train_many(asked)
    assert [name for name in tanh.start if name.startswith("delta")] == ["delta_rms_1", "delta_rms_2", "delta_rms_3"]
    assert sigmoid.start["delta_rms_1"] < tanh.start["delta_rms_1"], "each keeps its own, though a stack sorts by activation"
    [still] = deltarule.train_many([asked[1].override({"train.optimizer.learning_rate": 1e-12, "train.epochs": 1})])
    assert still.history["delta_rms_1"][0] == pytest.approx(sigmoid.start["delta_rms_1"], rel=1e-6)


def test_those_that_end_early_or_diverge_leave_the_others_alone():
    sgd = {"train.optimizer": {"name": "sgd", "learning_rate": 0.05}, "train.epochs": 8}
    calm = experiment(**sgd)
    wild = calm.override("train.optimizer.learning_rate", 1e30)
    impatient = calm.override(
        {"train.optimizer.learning_rate": 1e-9, "train.early_stopping.patience": 1, "model.activation": "tanh"}
    )
    alone, beside = deltarule.train_many([calm])[0], deltarule.train_many([wild, calm, impatient])
    assert [one.ended for one in beside][:2] == ["diverged", "completed"]
    assert beside[0].last is None and beside[0].best is None and "diverged" in beside[0].message
    np.testing.assert_allclose(beside[1].last["layers.0.weight"], alone.last["layers.0.weight"], rtol=1e-5)
    assert len(beside[2].history["epoch"]) <= 8 and beside[2].last is not None


def test_folds_and_what_a_backend_cannot_do_are_refused():
    with pytest.raises(deltarule.SpecError, match=r"data\.split\.folds must be null here"):
        deltarule.train_many([experiment(**{"data.split.folds": 3})])
    with pytest.raises(deltarule.BackendError, match=r"train\.precision"):
        deltarule.train_many([experiment(**{"train.precision": "bf16-mixed"})])


def test_nothing_to_train_is_nothing():
    assert deltarule.train_many([]) == []


def test_a_stack_is_equal_to_its_solo_runs_to_the_bit_where_nobody_limits_threads(monkeypatch):
    """All sixteen together make a step of 2^26 products, for which several threads would be taken."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    wide = {
        "data.source": "digits",
        "model.hidden": [256, 128],
        "train.batch_size": 128,
        "train.precision": "float64",
        "train.epochs": 1,
    }
    asked = [experiment(**wide, **{"train.backend": "lightning", "seed": seed}) for seed in range(16)]
    for one, alone in zip(deltarule.train_many(asked, width=16)[::5], deltarule.train_many(asked[::5], width=1), strict=True):
        assert all((one.last[name] == alone.last[name]).all() for name in one.last)
