"""Keras on JAX: the contract of a backend, and what is particular to it.

pytest does not collect this file by itself, since Keras takes one engine a process: tests/test_keras_jax.py runs it in
processes of its own. By hand: `pytest tests/keras_on_jax.py`.
"""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from keras_checks import KerasChecks, chunk_of

from backends import get
from backends.activations import ACTIVATIONS, numerics
from backends.base import Machine
from backends.conformance import TASKS, Conformance, make_data, make_trial
from backends.supervisor import fit

BACKEND = get("keras-jax")

import jax  # noqa: E402 (after the backend, which has JAX count in 64 bits)
from jax import numpy as jnp  # noqa: E402

from backends.keras.jax import XP  # noqa: E402


class TestKerasOnJax(Conformance):
    backend = "keras-jax"


class TestOnJax(KerasChecks):
    backend, engine, put = "keras-jax", "jax", staticmethod(jnp.array)

    def traces(self, program):
        return program.traces


# -- the mathematics in JAX' operations -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_their_gradients_are_numpys_at_zero_and_far_out_too(name):
    far = np.array([0.0, -0.0, 1e-300, 30.0, 700.0, 1e4, 1e150])
    v = np.concatenate([np.linspace(-9, 9, 1001), far, -far])
    a, phi = np.float64(0.013), ACTIVATIONS[name]
    value, back = jax.vjp(lambda field: phi.value(XP, field, a), jnp.array(v))
    with np.errstate(over="ignore"):
        expected, slope = phi.value(numerics, v, a), phi.slope(numerics, v, a)
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(back(jnp.ones_like(value))[0], slope, rtol=1e-12, atol=5e-15)
    np.testing.assert_allclose(phi.slope(XP, jnp.array(v), a), slope, rtol=1e-12, atol=5e-15)


# -- compiled once ----------------------------------------------------------------------------------------------------


def test_whole_batches_and_the_short_one_compile_once_each_whatever_the_chunk():
    stack = BACKEND.stack([make_trial("binary", dropout=0.2)], make_data("binary"))
    stack.program.traces = 0
    for step, (steps, batch) in enumerate([(3, 16), (1, 6), (9, 16), (1, 6), (16, 16), (2, 16)]):
        stack.run(chunk_of(stack, step=step, steps=steps, batch=batch))
    assert stack.program.traces == 2


def test_a_whole_fit_compiles_twice_and_the_next_of_its_structure_not_at_all(monkeypatch):
    monkeypatch.setattr("backends.keras.stack._idle", [])
    data = make_data("binary")
    seen = []
    for seed in (1, 2):
        fit(BACKEND, [make_trial("binary", dropout=0.1 * seed, l1=1e-3 * seed, seed=seed, epochs=3)], data)
        from backends.keras import stack as stacks

        (_, program), seen = stacks._idle[-1], [*seen, stacks._idle[-1][1]]
        assert program.traces == 2
    assert seen[0] is seen[1] and len(stacks._idle) == 1


# -- the stack --------------------------------------------------------------------------------------------------------


def test_an_infinite_local_field_of_one_trial_is_no_other_activations_nan():
    """-inf is 0 for relu, and a NaN for the slope of silu, which is not this trial's."""
    trials = [make_trial("regression", activation=name) for name in ("relu", "silu")]
    stack = BACKEND.stack(trials, make_data("regression"))
    flat = stack.weights()
    flat[0, 7 * 9] = -np.inf  # the first bias
    found = stack.loss_and_gradients(flat, make_data("regression").X[:5], make_data("regression").y[:5], None)
    assert np.isfinite(found.loss).all() and np.isfinite(found.gradient).all()


@pytest.mark.parametrize("task", TASKS)
def test_its_weights_predict_the_same_on_lightning_and_lightnings_here(task):
    trial, data = make_trial(task, precision="float32", epochs=3, dropout=0.2), make_data(task)
    for trainer in (BACKEND, get("lightning")):
        flat = fit(trainer, [trial], data)[0].weights
        outputs = []
        for predictor in (BACKEND, get("lightning")):
            stack = predictor.stack([trial])
            stack.load({"weights": flat[None]})
            outputs.append(stack.predict(data.X_valid))
        np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)


def test_mixed_precision_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match="must be float32 or float64 for the keras-jax backend, got bf16-mixed; set"):
        BACKEND.stack([make_trial("binary", precision="bf16-mixed")], make_data("binary"))


def test_other_threads_than_jax_started_with_are_no_error(caplog):
    BACKEND.stack([make_trial("binary")]).predict(np.zeros((1, 7)))
    with caplog.at_level(logging.DEBUG, "backends.keras.jax"):
        BACKEND.stack([make_trial("binary")], machine=Machine(threads=7)).predict(np.zeros((1, 7)))
    assert "JAX goes on with" in caplog.text


def test_the_engine_of_the_other_backend_of_keras_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match="keras needs Keras on tensorflow, but Keras is already imported with jax"):
        get("keras")


def python(code):
    """What a fresh process prints."""
    known = {k: v for k, v in os.environ.items() if k not in ("KERAS_BACKEND", "PJRT_NPROC")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=known)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Counts the threads of a process by their names in Linux, where XLA's pool is "tf_XLAEigen". Each question has a process that
# JAX was imported in and has not computed in; imported once, it is forked.
POOLS = """
import os, sys
from backends import get; from backends.base import Machine; from backends.conformance import make_trial
import numpy as np
backend = get('keras-jax')
for threads in (1, 3):
    for known in (None, '9'):
        if os.fork() == 0:
            os.environ.update({'PJRT_NPROC': known} if known else {})
            backend.stack([make_trial('binary')], machine=Machine(threads=threads)).predict(np.zeros((1, 7)))
            names = [open(f'/proc/self/task/{t}/comm').read() for t in os.listdir('/proc/self/task')]
            print(threads, known, os.environ.get('PJRT_NPROC'), sum('XLAEigen' in name for name in names))
            sys.stdout.flush()
            os._exit(0)
        os.wait()
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
def test_jax_has_the_threads_that_were_asked_for_and_the_environment_is_as_it_was():
    found = [line.split() for line in python(POOLS).splitlines()]
    assert found == [[threads, known, known, threads] for threads in ("1", "3") for known in ("None", "9")]
