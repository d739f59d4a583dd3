"""What holds for Keras on every engine, beside the contract: a class of checks as backends.conformance has them."""

import numpy as np
import pytest

from backends import draws, get
from backends.base import Chunk, Data, Machine
from backends.conformance import ACTIVATIONS as SOME
from backends.conformance import make_data, make_trial


def chunk_of(stack, step=0, steps=3, batch=16):
    """Some steps on the first rows, the same for all trials."""
    rows = np.arange(steps * batch).reshape(1, steps, batch) % 70
    keys = draws.noise_keys(stack.seeds, range(step, step + steps), len(stack.trials[0].dropout))
    rows = np.repeat(rows, len(stack.seeds), axis=0)
    return Chunk(0, step, rows, keys, np.full((len(stack.trials), steps), 1e-3))


class KerasChecks:
    """A subclass names its backend and engine, how arrays come to it, and how often a program's `run` was traced."""

    backend, engine = "", ""

    @pytest.fixture
    def subject(self):
        return get(self.backend)

    @pytest.mark.parametrize(("seeds", "steps", "rows", "units"), [(1, 1, 1, 1), (3, 2, 5, 7), (1, 4, 33, 128), (2, 1, 700, 97)])
    @pytest.mark.parametrize("step", [0, 2**31 - 3, 2**32 - 9])
    def test_noise_is_bit_equal_to_the_draws(self, subject, seeds, steps, rows, units, step):
        from backends.keras.noise import noise

        keys = draws.noise_keys([2**32 - 1, 0, 12][:seeds], range(step, step + steps), 3)
        found = np.asarray(noise(self.put(keys), rows, units))
        assert found.dtype == np.uint32
        np.testing.assert_array_equal(found, draws.noise(keys, rows, units))

    def test_a_unit_is_dropped_below_its_trials_threshold_and_kept_at_it(self, subject):
        from backends.keras.noise import kept

        limits = np.array([0, draws.threshold(0.25), draws.threshold(0.999)], dtype=np.uint32)
        hashed = np.concatenate([(limits << 8) + np.uint32(255), (limits << 8), np.maximum(limits << 8, 1) - np.uint32(1)])
        found = np.asarray(kept(self.put(hashed.reshape(1, 1, -1)), self.put(limits)))
        np.testing.assert_array_equal(found, (hashed >> np.uint32(8)) >= limits[:, None, None])

    @pytest.mark.parametrize("names", [("leaky_relu",), ("leaky_relu", "relu")])
    def test_each_trial_has_its_own_slope_of_leaky_relu(self, subject, names):
        slopes = {"leaky_relu": (0.01, 0.3, 0.0), "relu": (0.5,)}
        trials = [make_trial("regression", activation=name, slope=a) for name in names for a in slopes[name]]
        X = make_data("regression").X
        found, expected = (backend.stack(trials).predict(X) for backend in (subject, get("reference")))
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)

    def test_a_stack_takes_over_what_was_compiled_for_one_that_is_gone_and_nothing_else(self, subject, monkeypatch):
        def trials(number, groups):
            changes = {"dropout": number / 20, "l1": 1e-3 * number, "clip_norm": 0.01 * number}
            return [make_trial("binary", activation=name, seed=number + i, **changes) for i, name in enumerate(groups)]

        def trained(stack):
            stack.run(chunk_of(stack))
            return stack.state()

        monkeypatch.setattr("backends.keras.stack._idle", [])
        data, wanted = make_data("binary"), trials(5, ("relu", "relu", "tanh"))
        before = subject.stack(trials(9, ("relu", "tanh", "tanh")), data)  # another division of the same computation
        beside = subject.stack(wanted, data)
        assert beside.program is not before.program
        program, other, expected = before.program, trained(before), trained(beside)
        del before
        after = subject.stack(wanted, data)
        found = trained(after)
        assert after.program is program and self.traces(program) == 1
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
            assert not np.array_equal(other[name], value)

    def test_noise_made_in_blocks_of_steps_is_the_same(self, subject, monkeypatch):
        def weights_after(numbers):
            monkeypatch.setattr("backends.keras.stack.NOISE_NUMBERS", numbers)
            stack = subject.stack([make_trial("binary", dropout=0.4, input_dropout=0.3)], make_data("binary"))
            stack.run(chunk_of(stack, steps=7))
            return stack.weights()

        whole = weights_after(10**6)
        for numbers in (1, 16 * 21 * 3):  # one step at a time, three
            np.testing.assert_array_equal(weights_after(numbers), whole)

    def test_the_network_is_a_keras_model(self, subject):
        import keras

        stack = subject.stack([make_trial("multiclass", activation=name) for name in SOME], make_data("multiclass"))
        network, X = stack.program.network, make_data("multiclass").X
        assert isinstance(network, keras.Model) and keras.backend.backend() == self.engine
        np.testing.assert_allclose(np.asarray(network(X)), stack.predict(X), rtol=1e-12, atol=1e-14)
        assert network.count_params() >= stack.weights().size

    def test_many_rows_are_predicted_in_blocks(self, subject, monkeypatch):
        data = make_data("multiclass")
        many = Data(data.X, data.y, np.tile(data.X_valid, (4, 1)), np.tile(data.y_valid, 4))
        stack = subject.stack([make_trial("multiclass", activation=name) for name in SOME], many)
        whole = stack.predict(many.X_valid)
        monkeypatch.setattr("backends.keras.stack.PREDICT_ROWS", 50)
        assert whole.shape == (4, 132, 3)
        np.testing.assert_allclose(stack.predict(many.X_valid), whole, rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(stack.predict(), whole, rtol=1e-14, atol=1e-14)
        assert stack.predict(np.zeros((0, 7))).shape == (4, 0, 3)

    def test_more_devices_than_one_are_refused_with_a_way_out(self, subject):
        with pytest.raises(ValueError, match=rf"must be 1 with train\.backend: {self.backend}, got 2; set train\.devices: 1"):
            subject.stack([make_trial("binary")], machine=Machine(devices=2))

    def test_versions_and_devices_are_named(self, subject):
        assert {self.engine, "keras"} <= subject.versions().keys()
        assert subject.devices()[-1] == "cpu"
