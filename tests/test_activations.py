"""φ and φ' of docs/theory.md's table, in NumPy. The adapters' tests hold the frameworks to these."""

import math

import numpy as np
import pytest

from backends.activations import ACTIVATIONS, numerics

CLOSED = {
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "tanh": math.tanh,
    "relu": lambda v: max(v, 0.0),
    "leaky_relu": lambda v: v if v > 0 else 0.2 * v,
    "identity": lambda v: v,
    "elu": lambda v: v if v > 0 else math.exp(v) - 1,
    "selu": lambda v: 1.0507009873554805 * (v if v > 0 else 1.6732632423543772 * (math.exp(v) - 1)),
    "gelu": lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2,
    "silu": lambda v: v / (1 + math.exp(-v)),
    "softplus": lambda v: math.log1p(math.exp(v)),
}
AT_ZERO = {"sigmoid": 0.25, "relu": 0, "leaky_relu": 0.2, "elu": 1, "selu": 1.0507009873554805 * 1.6732632423543772,
           "tanh": 1, "identity": 1, "gelu": 0.5, "silu": 0.5, "softplus": 0.5}  # fmt: skip


def value(name, v):
    return ACTIVATIONS[name].value(numerics, np.asarray(v, dtype=np.float64), 0.2)


def slope(name, v):
    return ACTIVATIONS[name].slope(numerics, np.asarray(v, dtype=np.float64), 0.2)


def test_the_table_is_complete():
    assert set(CLOSED) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_are_those_of_the_closed_form(name):
    at = np.linspace(-6, 6, 241)
    np.testing.assert_allclose(value(name, at), [CLOSED[name](v) for v in at], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_are_the_derivatives(name):
    at = np.linspace(-6, 6, 240)  # 0 is not among them
    np.testing.assert_allclose(slope(name, at), (value(name, at + 1e-6) - value(name, at - 1e-6)) / 2e-6, atol=1e-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_at_zero_the_left_branch_holds(name):
    assert slope(name, [0.0])[0] == pytest.approx(AT_ZERO[name], rel=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.filterwarnings("ignore:underflow")
def test_large_arguments_overflow_nowhere(name):
    with np.errstate(over="raise", invalid="raise"):
        for found in (value(name, [-1e4, 1e4]), slope(name, [-1e4, 1e4])):
            assert np.isfinite(found).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_steepest_is_the_largest_slope(name):
    at = np.linspace(-8, 8, 160001)
    assert np.abs(slope(name, at)).max() == pytest.approx(ACTIVATIONS[name].steepest, rel=1e-3)
    assert np.abs(slope(name, at)).max() <= ACTIVATIONS[name].steepest * (1 + 1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_is_no_number_stays_none(name):
    """Else a network with NaN in its weights could report a finite loss, and its trial would never be ended."""
    assert np.isnan(value(name, [np.nan]))[0]
