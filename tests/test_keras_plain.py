"""A trained network as a plain keras.Sequential; on TensorFlow here, and on JAX in a process of test_keras_jax.py."""

import dataclasses
import random
from typing import get_args

import numpy as np
import pytest

from backends import BackendError, get, weights
from backends.conformance import TASKS, make_data, make_trial
from backends.keras import present
from backends.spec import ActivationName

pytest.importorskip("keras")
# Keras 3.15 hands its variables to NumPy 2.4 so, when it saves a model or gives out its weights.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")


@pytest.fixture(scope="module")
def plain():
    """The module of `to_keras`, with Keras on an engine."""
    get(present())
    from backends.keras import network

    return network


def trained(task, **changes):
    """A trial, weights that bring local fields up to a hundred, and what the reference predicts."""
    trial = make_trial(task, slope=0.3, dropout=0.2, input_dropout=0.1, **changes)
    flat, X = 3 * weights.initial([trial])[0] + 0.1, 10 * make_data(task).X
    stack = get("reference").stack([trial])
    stack.load({"weights": flat[None]})
    return trial, flat, X.astype(flat.dtype), stack.predict(X)[0]


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", get_args(ActivationName))
def test_it_predicts_what_the_reference_predicts_also_after_it_was_saved(plain, name, precision, tmp_path):
    import keras

    trial, flat, X, expected = trained("multiclass", activation=name, precision=precision)
    model = plain.to_keras(trial, flat)
    model.save(tmp_path / "model.keras")
    for found in (model, keras.saving.load_model(tmp_path / "model.keras")):  # without custom objects, in safe mode
        outputs = keras.ops.convert_to_numpy(found(X))
        assert outputs.dtype == precision
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("hidden", [(), (9, 5)])
@pytest.mark.parametrize("task", TASKS)
def test_its_outputs_are_those_before_sigmoid_or_softmax(plain, task, hidden):
    import keras

    trial, flat, X, expected = trained(task, hidden=hidden, precision="float32")
    found = keras.ops.convert_to_numpy(plain.to_keras(trial, flat)(X))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_it_is_made_of_keras_own_layers_and_trains_on(plain):
    import keras

    trial = make_trial("binary", dropout=(0.0, 0.4), input_dropout=0.1, slope=0.2, activation="leaky_relu", precision="float32")
    model = plain.to_keras(trial, weights.initial([trial])[0])
    assert [type(layer).__name__ for layer in model.layers] == [
        "Dropout", "Dense", "LeakyReLU", "Dense", "LeakyReLU", "Dropout", "Dense",
    ]  # fmt: skip
    assert (model.layers[0].rate, model.layers[2].negative_slope, model.layers[5].rate) == (0.1, 0.2, 0.4)
    assert {type(layer).__module__.partition(".")[0] for layer in model.layers} == {"keras"}
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    before = model.get_weights()
    model.train_on_batch(np.ones((4, 7), np.float32), np.ones((4, 1), np.float32))
    assert all((one != other).any() for one, other in zip(before, model.get_weights(), strict=True))


def test_it_draws_no_random_numbers_of_the_callers(plain):
    trial, flat, _, _ = trained("regression", precision="float32")
    state, mine = random.getstate(), np.random.get_state()[1].copy()
    plain.to_keras(trial, flat)
    assert random.getstate() == state and (np.random.get_state()[1] == mine).all()


def test_a_model_that_predicts_otherwise_is_refused(plain, monkeypatch):
    trial, flat, _, _ = trained("regression", activation="selu")
    dense, elu = plain.StackedDense.plain, make_trial("multiclass", activation="elu").model
    monkeypatch.setattr(plain.StackedDense, "plain", lambda layer, model, *rest: dense(layer, model and elu, *rest))
    with pytest.raises(
        BackendError, match=r"must predict what the reference predicts, but its outputs differ by .* of the largest"
    ):
        plain.to_keras(trial, flat)


def test_a_trained_run_gives_it(plain, tmp_path):
    import keras

    from pipelines.api.results import Model
    from pipelines.stages.networks import Network

    trial, flat, X, expected = trained("multiclass", precision="float32")
    network = dataclasses.make_dataclass("Stub", ["trial", "flat"])(trial, flat)
    assert {"trial", "flat"} <= {field.name for field in dataclasses.fields(Network)}
    found = keras.ops.convert_to_numpy(Model(network).to_keras()(X))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
