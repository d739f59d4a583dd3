"""Keras on TensorFlow: the contract of a backend, and what is particular to it."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from keras_checks import KerasChecks, chunk_of

from backends import get
from backends.activations import ACTIVATIONS, numerics
from backends.base import Machine
from backends.conformance import Conformance, make_data, make_trial
from backends.keras import chosen_engine, present


class TestKeras(Conformance):
    backend = "keras"


class TestOnTensorFlow(KerasChecks):
    backend, engine, put = "keras", "tensorflow", staticmethod(np.asarray)

    def traces(self, program):
        return program.run.experimental_get_tracing_count()


@pytest.fixture(scope="module")
def keras():
    """The backend, with TensorFlow imported."""
    return get("keras")


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


# -- graphs are traced once -------------------------------------------------------------------------------------------


def test_a_short_batch_and_another_chunk_length_are_not_traced_again(keras):
    stack = keras.stack([make_trial("binary", dropout=0.2)], make_data("binary"))
    for steps, batch in ((3, 16), (1, 6), (9, 16)):
        stack.run(chunk_of(stack, steps=steps, batch=batch))
    for rows in (1, 5, 70):
        stack.predict(np.zeros((rows, 7)))
    assert stack.program.run.experimental_get_tracing_count() == 1
    assert stack.program.predict.experimental_get_tracing_count() == 1


def test_many_structures_bring_no_warning_of_retracing(keras, caplog, capfd):
    for units in range(1, 8):
        stack = keras.stack([make_trial("binary", hidden=(units,))], make_data("binary"))
        stack.predict()
    assert not caplog.records and capfd.readouterr().err == ""


# -- the stack --------------------------------------------------------------------------------------------------------


def test_other_threads_than_tensorflow_started_with_are_no_error(keras):
    keras.stack([make_trial("binary")]).predict(np.zeros((1, 7)))
    keras.stack([make_trial("binary")], machine=Machine(threads=2)).predict(np.zeros((1, 7)))


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
