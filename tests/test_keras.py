"""Keras on TensorFlow: the contract of a backend, and what is particular to it."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from backends import draws, get
from backends.activations import ACTIVATIONS, numerics
from backends.base import Chunk, Data, Machine
from backends.conformance import ACTIVATIONS as SOME
from backends.conformance import Conformance, make_data, make_trial
from backends.keras import chosen_engine, present


class TestKeras(Conformance):
    backend = "keras"


@pytest.fixture(scope="module")
def keras():
    """The backend, with TensorFlow imported."""
    return get("keras")


def chunk_of(stack, step=0, steps=3, batch=16):
    """Some steps on the first rows, the same for all trials."""
    rows = np.arange(steps * batch).reshape(1, steps, batch) % 70
    keys = draws.noise_keys(stack.seeds, range(step, step + steps), len(stack.trials[0].dropout))
    rows = np.repeat(rows, len(stack.seeds), axis=0)
    return Chunk(0, step, rows, keys, np.full((len(stack.trials), steps), 1e-3))


# -- the mathematics in Keras' operations -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_their_gradients_are_numpys_at_zero_and_far_out_too(keras, name):
    import keras as k3
    import tensorflow as tf

    far = np.array([0.0, -0.0, 1e-300, 30.0, 700.0, 1e4, 1e150])  # TensorFlow's erf is NaN beyond 1e154
    v = np.concatenate([np.linspace(-9, 9, 1001), far, -far])
    a, phi = np.float64(0.013), ACTIVATIONS[name]
    with tf.GradientTape() as tape:
        field = tf.constant(v)
        tape.watch(field)
        value = phi.value(k3.ops, field, tf.constant(a))
    with np.errstate(over="ignore"):
        expected, slope = phi.value(numerics, v, a), phi.slope(numerics, v, a)
    assert value.dtype == tf.float64
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(tape.gradient(value, field).numpy(), slope, rtol=1e-12, atol=5e-15)
    np.testing.assert_allclose(phi.slope(k3.ops, field, tf.constant(a)).numpy(), slope, rtol=1e-12, atol=5e-15)


@pytest.mark.parametrize(("seeds", "steps", "rows", "units"), [(1, 1, 1, 1), (3, 2, 5, 7), (1, 4, 33, 128), (2, 1, 700, 97)])
@pytest.mark.parametrize("step", [0, 2**31 - 3, 2**32 - 9])
def test_noise_is_bit_equal_to_the_draws(keras, seeds, steps, rows, units, step):
    from backends.keras.noise import noise

    keys = draws.noise_keys([2**32 - 1, 0, 12][:seeds], range(step, step + steps), 3)
    expected = draws.noise(keys, rows, units)
    found = noise(keys, rows, units).numpy()
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, expected)


def test_a_unit_is_dropped_below_its_trials_threshold_and_kept_at_it(keras):
    from backends.keras.noise import kept

    limits = np.array([0, draws.threshold(0.25), draws.threshold(0.999)], dtype=np.uint32)
    hashed = np.concatenate([(limits << 8) + np.uint32(255), (limits << 8), np.maximum(limits << 8, 1) - np.uint32(1)])
    found = kept(hashed.reshape(1, 1, -1), limits).numpy()
    np.testing.assert_array_equal(found, (hashed >> np.uint32(8)) >= limits[:, None, None])


@pytest.mark.parametrize("names", [("leaky_relu",), ("leaky_relu", "relu")])
def test_each_trial_has_its_own_slope_of_leaky_relu(keras, names):
    slopes = {"leaky_relu": (0.01, 0.3, 0.0), "relu": (0.5,)}
    trials = [make_trial("regression", activation=name, slope=a) for name in names for a in slopes[name]]
    X = make_data("regression").X
    found, expected = (backend.stack(trials).predict(X) for backend in (keras, get("reference")))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


# -- graphs are traced once -------------------------------------------------------------------------------------------


def test_a_short_batch_and_another_chunk_length_are_not_traced_again(keras):
    stack = keras.stack([make_trial("binary", dropout=0.2)], make_data("binary"))
    for steps, batch in ((3, 16), (1, 6), (9, 16)):
        stack.run(chunk_of(stack, steps=steps, batch=batch))
    for rows in (1, 5, 70):
        stack.predict(np.zeros((rows, 7)))
    assert stack.program.run.experimental_get_tracing_count() == 1
    assert stack.program.predict.experimental_get_tracing_count() == 1


def test_a_stack_takes_over_the_graphs_of_one_that_is_gone_and_nothing_else(keras, monkeypatch):
    def trials(number, groups):
        changes = {"dropout": number / 20, "l1": 1e-3 * number, "clip_norm": 0.01 * number}
        return [make_trial("binary", activation=name, seed=number + i, **changes) for i, name in enumerate(groups)]

    def trained(stack):
        stack.run(chunk_of(stack))
        return stack.state()

    monkeypatch.setattr("backends.keras.stack._idle", [])
    data, wanted = make_data("binary"), trials(5, ("relu", "relu", "tanh"))
    before = keras.stack(trials(9, ("relu", "tanh", "tanh")), data)  # another division of the same graph
    beside = keras.stack(wanted, data)
    assert beside.program is not before.program
    program, other, expected = before.program, trained(before), trained(beside)
    del before
    after = keras.stack(wanted, data)
    found = trained(after)
    assert after.program is program and program.run.experimental_get_tracing_count() == 1
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert not np.array_equal(other[name], value)


def test_many_structures_bring_no_warning_of_retracing(keras, caplog, capfd):
    for units in range(1, 8):
        stack = keras.stack([make_trial("binary", hidden=(units,))], make_data("binary"))
        stack.predict()
    assert not caplog.records and capfd.readouterr().err == ""


def test_noise_made_in_blocks_of_steps_is_the_same(keras, monkeypatch):
    def weights_after(numbers):
        monkeypatch.setattr("backends.keras.stack.NOISE_NUMBERS", numbers)
        stack = keras.stack([make_trial("binary", dropout=0.4, input_dropout=0.3)], make_data("binary"))
        stack.run(chunk_of(stack, steps=7))
        return stack.weights()

    whole = weights_after(10**6)
    for numbers in (1, 16 * 21 * 3):  # one step at a time, three
        np.testing.assert_array_equal(weights_after(numbers), whole)


# -- the stack --------------------------------------------------------------------------------------------------------


def test_the_network_is_a_keras_model(keras):
    import keras as k3

    stack = keras.stack([make_trial("multiclass", activation=name) for name in SOME], make_data("multiclass"))
    network, X = stack.program.network, make_data("multiclass").X
    assert isinstance(network, k3.Model)
    np.testing.assert_array_equal(network(X).numpy(), stack.predict(X))
    assert network.count_params() >= stack.weights().size


def test_many_rows_are_predicted_in_blocks(keras, monkeypatch):
    data = make_data("multiclass")
    many = Data(data.X, data.y, np.tile(data.X_valid, (4, 1)), np.tile(data.y_valid, 4))
    stack = keras.stack([make_trial("multiclass", activation=name) for name in SOME], many)
    whole = stack.predict(many.X_valid)
    monkeypatch.setattr("backends.keras.stack.PREDICT_ROWS", 50)
    assert whole.shape == (4, 132, 3)
    np.testing.assert_allclose(stack.predict(many.X_valid), whole, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(stack.predict(), whole, rtol=1e-14, atol=1e-14)
    assert stack.predict(np.zeros((0, 7))).shape == (4, 0, 3)


def test_a_network_without_hidden_layers_is_linear_regression(keras):
    trials, data = [make_trial("regression", hidden=(), input_dropout=0.2)], make_data("regression")
    mine, expected = keras.stack(trials, data), get("reference").stack(trials, data)
    for stack in (mine, expected):
        stack.run(chunk_of(stack))
    np.testing.assert_allclose(mine.weights(), expected.weights(), rtol=1e-12)
    for found, wanted in zip(mine.probe(), expected.probe(), strict=True):
        np.testing.assert_allclose(found, wanted.reshape(1, -1), rtol=1e-12)


def test_what_a_stack_gives_out_is_a_copy(keras):
    stack = keras.stack([make_trial("binary")], make_data("binary"))
    stack.run(chunk_of(stack))
    given = stack.state()
    kept = {name: value.copy() for name, value in given.items()}
    for value in (*given.values(), stack.weights()):
        value[:] = 7
    for name, value in stack.state().items():
        np.testing.assert_array_equal(value, kept[name])
    given = stack.state()
    stack.run(chunk_of(stack, step=3))
    for name, value in kept.items():
        np.testing.assert_array_equal(given[name], value)


def test_more_devices_than_one_are_refused_with_a_way_out(keras):
    with pytest.raises(ValueError, match=r"train\.devices must be 1 with train\.backend: keras, got 2; set train\.devices: 1"):
        keras.stack([make_trial("binary")], machine=Machine(devices=2))


def test_other_threads_than_tensorflow_started_with_are_no_error(keras):
    keras.stack([make_trial("binary")]).predict(np.zeros((1, 7)))
    keras.stack([make_trial("binary")], machine=Machine(threads=2)).predict(np.zeros((1, 7)))


def test_versions_and_devices_are_named(keras):
    assert {"tensorflow", "keras"} <= keras.versions().keys()
    assert keras.devices()[-1] == "cpu"


# -- one engine a process ---------------------------------------------------------------------------------------------


def test_an_engine_is_chosen_where_none_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setenv("KERAS_BACKEND", "")
    monkeypatch.delenv("KERAS_BACKEND")
    with chosen_engine("keras"):
        assert os.environ["KERAS_BACKEND"] == "tensorflow"
    assert "KERAS_BACKEND" not in os.environ  # a process that is started from here may want another engine


def test_where_keras_is_wanted_on_any_engine_it_is_the_one_that_was_chosen_or_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert present() == "keras"
    monkeypatch.setattr("backends.keras.find_spec", lambda name: None if name == "tensorflow" else object())
    assert present() == "keras-jax"
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert present() == "keras"
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(config=SimpleNamespace(backend=lambda: "jax")))
    assert present() == "keras-jax"


def test_keras_on_another_engine_is_refused_with_a_way_out(monkeypatch):
    loaded = SimpleNamespace(config=SimpleNamespace(backend=lambda: "jax"))
    monkeypatch.setitem(sys.modules, "keras", loaded)
    with pytest.raises(
        ValueError, match=r"train\.backend: keras needs Keras on tensorflow, but Keras is already imported with jax"
    ):
        get("keras")
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(ValueError, match="KERAS_BACKEND is set to torch; start a new process with KERAS_BACKEND=tensorflow"):
        get("keras")


def test_the_package_alone_imports_no_framework():
    script = "import sys, backends.keras; print(sorted({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"


def test_tensorflow_is_imported_without_a_word_and_with_the_threads_that_were_asked_for():
    script = (
        "from backends import get; from backends.base import Machine; from backends.conformance import make_trial\n"
        "get('keras').stack([make_trial('binary')], machine=Machine(threads=2))\n"
        "import tensorflow as tf; print(tf.config.threading.get_intra_op_parallelism_threads())"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("2\n", "")
