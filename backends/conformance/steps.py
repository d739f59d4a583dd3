"""One optimizer step, and what it is made of: the delta rule, the noise, the optimizer, and what a stack lets out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from backends import draws, get, weights
from backends.base import Backend, Chunk, Data, Gradients, Stack
from backends.conformance.cases import (
    BATCH,
    CASE_OPTIMIZERS,
    EVERY_ACTIVATION,
    OPTIMIZERS,
    STRUCTURES,
    TARGETS,
    TASKS,
    cases,
    every_activation,
    make_data,
    make_trial,
    some_row_weights,
    some_weights,
)
from backends.conformance.compare import (
    STEP_TOLERANCE,
    assert_close,
    assert_same_losses,
    assert_same_state,
    course,
    largest,
    on_structures,
)
from backends.spec import NDArray, Task, Trial
from backends.supervisor import fit


def deal(stack: Stack, step: int = 0, steps: int = 3, size: int = BATCH) -> Chunk:
    """Some steps on rows that differ from seed to seed, with rates that differ from trial to trial."""
    seeds, trials = stack.seeds, stack.trials
    rows = np.stack([draws.row_order(seed, step, 70)[: steps * size].reshape(steps, size) for seed in seeds])
    keys = draws.noise_keys(seeds, range(step, step + steps), len(trials[0].dropout))
    return Chunk(0, step, rows, keys, np.outer(0.01 * np.arange(1, len(trials) + 1), np.ones(steps)))


def assert_same_gradients(trials: Sequence[Trial], found: Gradients, expected: Gradients, tolerance: float) -> None:
    """Everything that `loss_and_gradients` gives, within a share of the largest number of each trial, or of 1."""

    def close(mine: NDArray, theirs: NDArray, what: str) -> None:
        assert_close(trials, mine, theirs, tolerance * np.maximum(1.0, largest(theirs)), what)

    for name in ("logits", "loss", "penalty", "gradient"):
        close(getattr(found, name), getattr(expected, name), name)
    for layer, (mine, theirs) in enumerate(zip(found.delta, expected.delta, strict=True)):
        close(mine, theirs, f"δ of layer {layer + 1}")


class StepChecks:
    """Checks that need no more than a few steps."""

    backend: ClassVar[str]

    # -- the delta rule --

    @pytest.mark.parametrize("precision", ["float32", "float64"])
    def test_initial_weights_are_the_draws(self, subject: Backend, precision: str) -> None:
        trials = every_activation("multiclass", precision=precision)
        found = subject.stack(trials).weights()
        assert found.dtype == precision
        np.testing.assert_array_equal(found, weights.initial(trials))

    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize("noisy", [False, True])
    def test_gradients_and_local_gradients_are_the_delta_rule(self, subject: Backend, target: str, noisy: bool) -> None:
        task, outputs = TARGETS[target]
        trials, data = every_activation(task, outputs=outputs, input_dropout=0.2), make_data(task, outputs)
        keys = draws.noise_keys([3, 4], [11], len(trials[0].dropout))[:, 0] if noisy else None
        found, expected = self._gradients(subject, trials, data, weights.initial(trials), keys)
        assert_same_gradients(trials, found, expected, 1e-12)

    def test_at_a_local_field_of_zero_the_left_branch_holds(self, subject: Backend) -> None:
        """A first layer of zeros makes every v there exactly 0. Its weights stand on the kink of |W|, where L1 adds 0."""
        trials, data = self._penalised("regression"), make_data("regression")
        flat = weights.initial(trials)
        for slot in weights.layout(trials[0])[:2]:
            flat[:, slot.start : slot.stop] = 0
        assert_same_gradients(trials, *self._gradients(subject, trials, data, flat), 1e-12)

    @pytest.mark.parametrize("scale", [10.0, 1e4])
    def test_large_local_fields_overflow_nowhere(self, subject: Backend, scale: float) -> None:
        trials, data = self._penalised("regression"), make_data("regression")
        found, expected = self._gradients(subject, trials, data, scale * weights.initial(trials))
        assert_same_gradients(trials, found, expected, 1e-12)

    def test_large_local_fields_overflow_nowhere_in_float32(self, subject: Backend) -> None:
        trials, data = self._penalised("regression", precision="float32"), make_data("regression")
        found, _ = self._gradients(subject, trials, data, 1e3 * weights.initial(trials))
        assert np.isfinite(found.logits).all() and np.isfinite(found.gradient).all()

    @pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
    @pytest.mark.parametrize("task", ["binary", "multiclass"])
    def test_cross_entropies_come_from_logits(self, subject: Backend, task: Task, precision: str, tolerance: float) -> None:
        """Probabilities of such logits are 0 and 1 to the last bit, and their logarithms infinite."""
        trials, data = [make_trial(task, activation="tanh", precision=precision, seed=s) for s in (3, 4)], make_data(task)
        flat = weights.initial(trials)
        bias = weights.layout(trials[0])[-1]
        flat[0, bias.start : bias.stop] = np.linspace(800, -800, bias.stop - bias.start)
        flat[1, bias.start : bias.stop] = np.linspace(-700, 500, bias.stop - bias.start)
        found, expected = self._gradients(subject, trials, data, flat)
        assert np.isfinite(expected.loss).all() and (expected.loss > 100).all()
        assert_same_gradients(trials, found, expected, tolerance)

    def _penalised(self, task: Task, **changes: Any) -> list[Trial]:
        return [make_trial(task, activation=name, slope=0.15, l1=1e-3, l2=2e-3, **changes) for name in EVERY_ACTIVATION]

    def _gradients(
        self, subject: Backend, trials: Sequence[Trial], data: Data, flat: NDArray, keys: NDArray | None = None
    ) -> tuple[Gradients, Gradients]:
        """The backend's and the reference's."""
        arguments = (flat, data.X[:BATCH], data.y[:BATCH], keys)
        mine, theirs = (b.stack(trials, data).loss_and_gradients(*arguments) for b in (subject, get("reference")))
        return mine, theirs

    # -- noise --

    @pytest.mark.parametrize("place", [1, 2])
    def test_the_dropped_units_are_those_of_the_hash(self, subject: Backend, place: int) -> None:
        p, data = 0.3 * place, make_data("regression")
        dropout = (p, 0.0) if place == 1 else (0.0, p)  # one place alone: δ is 0 behind a row that lost its whole next layer
        trials = [make_trial("regression", activation="tanh", dropout=dropout, seed=seed) for seed in (3, 5)]
        keys = draws.noise_keys([3, 5], [123], 3)[:, 0]
        arguments = (weights.initial(trials), data.X[:BATCH], data.y[:BATCH], keys)
        found = subject.stack(trials, data).loss_and_gradients(*arguments).delta[place - 1]
        for k in range(2):
            hashed = draws.noise(keys[k, place], BATCH, trials[0].model.hidden[place - 1])
            np.testing.assert_array_equal(found[k] == 0, (hashed >> np.uint32(8)) < draws.threshold(p))

    def test_the_dropped_inputs_are_those_of_the_hash(self, subject: Backend) -> None:
        """Of one row and one linear output, the weights' gradient is δ·y: 0 where the input was dropped."""
        trials = [make_trial("regression", hidden=(), outputs=1, input_dropout=0.4, seed=seed) for seed in (3, 5)]
        data, keys = make_data("regression", 1), draws.noise_keys([3, 5], [7], 1)[:, 0]
        stack = subject.stack(trials, data)
        found = stack.loss_and_gradients(weights.initial(trials), data.X[:1], data.y[:1], keys).gradient
        inputs = trials[0].inputs
        for k in range(2):
            dropped = (draws.noise(keys[k, 0], 1, inputs) >> np.uint32(8)) < draws.threshold(0.4)
            np.testing.assert_array_equal(found[k, :inputs] == 0, dropped[0])

    # -- the step --

    @on_structures(range(len(STRUCTURES)))
    def test_each_step_from_the_references_state_is_the_references_step(self, subject: Backend, structure: int) -> None:
        trials, data = cases(structure).trials, cases(structure).data
        stack = subject.stack(trials, data)
        for chunk, before, expected, after in course(structure).moments:
            stack.load(before)
            when = f"at step {chunk.step + 1}"
            assert_same_losses(trials, stack.run(chunk), expected, when)
            assert_same_state(trials, stack.state(), after, STEP_TOLERANCE, when)

    @pytest.mark.parametrize("task", TASKS)
    def test_a_network_without_hidden_layers_takes_the_references_steps(self, subject: Backend, task: Task) -> None:
        trials = [make_trial(task, hidden=(), l1=1e-3, input_dropout=0.2, seed=s) for s in (1, 2)]
        self._same_steps(subject, trials, make_data(task))

    @pytest.mark.parametrize("optimizer", ["adam", "adamw"])
    def test_a_large_network_takes_the_references_steps(self, subject: Backend, optimizer: str) -> None:
        """From some size on, code goes another way."""
        trials = []
        for n in (1, 2, 3):
            own = {
                "l1": (1e-3 * n, 0.0, 2e-3),
                "l2": 1e-3 / n,
                "dropout": 0.1 * n,
                "clip_norm": 0.3 * n,
                "seed": 3 + n,
            }
            made = CASE_OPTIMIZERS[optimizer](n, 1)
            trials.append(make_trial("multiclass", hidden=(160, 190), optimizer=made, **own))
        self._same_steps(subject, trials, replace(make_data("multiclass"), weights=some_row_weights()))

    @pytest.mark.parametrize("scale", [1e150, 1e-170])
    def test_a_gradient_whose_norm_over_or_underflows_is_clipped_to_its_length(self, subject: Backend, scale: float) -> None:
        data, sgd = make_data("regression"), OPTIMIZERS["sgd"]
        trial = make_trial("regression", clip_norm=1e-2 * scale, optimizer=sgd)
        wild = Data(scale * data.X, scale * data.y, data.X_valid, data.y_valid)
        slots = []
        for backend in (subject, get("reference")):
            stack = backend.stack([trial], wild)
            stack.run(deal(stack, steps=1))
            slots.append(stack.state()["slot.momentum"][0] / scale)
        assert np.linalg.norm(slots[1]) == pytest.approx(1e-2)
        np.testing.assert_allclose(slots[0], slots[1], rtol=0, atol=1e-14)

    def test_a_gradient_whose_square_overflows_ends_its_trial(self, subject: Backend) -> None:
        """Adam would stand still for ever: m/√v is 0 where v is infinite."""
        trial, data = make_trial("binary", hidden=(), epochs=3), make_data("binary")
        wild = Data(1e160 * data.X, data.y, data.X_valid, data.y_valid)
        (result,) = fit(subject, [trial], wild)
        assert result.message == "diverged at step 1: the square of its gradient became inf"

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_a_trial_that_ended_stays_as_it_is_and_spoils_no_other(self, subject: Backend, optimizer: str) -> None:
        """Learning rate 0, and weights that may have become NaN."""
        changes = {"optimizer": OPTIMIZERS[optimizer], "clip_norm": 0.5, "l2": 1e-3, "dropout": 0.2}
        trials, data = [make_trial("binary", activation="tanh", seed=s, **changes) for s in (1, 2, 3)], make_data("binary")
        stacks = [backend.stack(trials, data) for backend in (subject, get("reference"))]
        ends = []
        for stack in stacks:
            chunk = deal(stack)
            chunk.rates[:2] = 0
            state = stack.state()
            state["weights"][1] = np.nan
            stack.load(state)
            losses = stack.run(chunk)
            assert np.isnan(losses.loss[1]).all() and np.isfinite(losses.loss[[0, 2]]).all()
            ends.append(stack.weights())
        np.testing.assert_array_equal(ends[0][0], weights.initial(trials)[0])
        assert_close(trials[2:], ends[0][2:], ends[1][2:], STEP_TOLERANCE * largest(ends[1][2:]), "weights of the neighbour")

    def test_trials_that_are_kept_go_on_in_the_order_that_was_asked_for(self, subject: Backend) -> None:
        trials = [
            make_trial("multiclass", activation=name, seed=seed, l1=1e-3 * k, dropout=0.1 * k, class_weights=w)
            for k, (name, seed) in enumerate((("relu", 1), ("relu", 2), ("tanh", 1)), 1)
            for w in [some_weights("multiclass", k)]
        ]
        data, ends = make_data("multiclass"), []
        for backend in (subject, get("reference")):
            stack = backend.stack(trials, data)
            stack.run(deal(stack))
            stack.keep([2, 1])
            assert [trial.model.activation for trial in stack.trials] == ["tanh", "relu"]
            stack.run(deal(stack, step=3))
            ends.append(stack.state())
        assert_same_state([trials[2], trials[1]], ends[0], ends[1], 3 * STEP_TOLERANCE, "after two chunks")

    def _same_steps(self, subject: Backend, trials: Sequence[Trial], data: Data) -> None:
        ends = []
        for backend in (subject, get("reference")):
            stack = backend.stack(trials, data)
            ends.append((stack.run(deal(stack)), stack.state(), stack.probe(), stack.predict()))
        (losses, state, signals, outputs), expected = ends[0], ends[1]
        assert_same_losses(trials, losses, expected[0], "of three steps")
        assert_same_state(trials, state, expected[1], 3 * STEP_TOLERANCE, "after three steps")
        for mine, theirs in zip((*signals, outputs), (*expected[2], expected[3]), strict=True):
            np.testing.assert_allclose(mine, np.reshape(theirs, mine.shape), rtol=1e-9, atol=1e-12)

    # -- what a stack lets out --

    def test_signals_are_the_references_with_dead_and_saturated_units_and_rows_beyond_the_first_1024(
        self, subject: Backend
    ) -> None:
        trials, data = every_activation("multiclass"), make_data("multiclass", rows=1100)
        bias = weights.layout(trials[0])[1]
        found = []
        for backend in (subject, get("reference")):
            stack = backend.stack(trials, data)
            state = stack.state()
            state["weights"] *= 3
            state["weights"][:, bias.start : bias.start + 3] = -60
            # A unit that none of the first 200 rows wakes, but some later row.
            W = state["weights"][:, 3 : bias.start : 9]
            v = W @ data.X[:1024].T
            first = v[:, :200].max(1)
            assert (v.max(1) > first).all()
            state["weights"][:, bias.start + 3] = -1e-6 - first
            stack.load(state)
            found.append(stack.probe())
        mine, expected = found
        for name in ("delta", "saturated", "dead"):
            np.testing.assert_allclose(getattr(mine, name), getattr(expected, name), rtol=1e-9, atol=1e-12, err_msg=name)
        assert (expected.dead > 0).any() and len(np.unique(expected.saturated)) > 3

    def test_any_number_of_rows_is_predicted_and_the_validation_rows_without_any(self, subject: Backend) -> None:
        trials, data = every_activation("multiclass"), make_data("multiclass")
        stack = subject.stack(trials, data)
        expected = get("reference").stack(trials, data).predict(data.X_valid)
        np.testing.assert_allclose(stack.predict(), expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(stack.predict(data.X_valid[4:5]), expected[:, 4:5], rtol=1e-12, atol=1e-12)
        many = stack.predict(np.tile(data.X_valid, (300, 1)))  # 9900 rows: more than fit into one block of ours
        np.testing.assert_allclose(many, np.tile(expected, (1, 300, 1)), rtol=1e-12, atol=1e-12)

    def test_what_a_stack_gave_out_and_took_in_is_no_longer_its_own(self, subject: Backend) -> None:
        trials, data = every_activation("binary"), make_data("binary")
        stack = subject.stack(trials, data)
        given = stack.state()
        kept = {name: value.copy() for name, value in given.items()}
        after = stack.run(deal(stack)).loss
        stack.state()
        for name, value in kept.items():
            np.testing.assert_array_equal(given[name], value, err_msg=f"{name}, after further steps")
        stack.load(given)
        for value in given.values():
            value[:] = 0
        np.testing.assert_array_equal(stack.run(deal(stack)).loss, after)

    def test_looking_changes_nothing(self, subject: Backend) -> None:
        trials, data = every_activation("binary"), make_data("binary")
        stack = subject.stack(trials, data)
        stack.run(deal(stack))
        before = stack.state()
        keys = draws.noise_keys(stack.seeds, [5], 3)[:, 0]
        stack.loss_and_gradients(2 * weights.initial(trials), data.X[:5], data.y[:5], keys)
        stack.probe(), stack.predict(), stack.predict(data.X[:3])
        for name, value in stack.state().items():
            np.testing.assert_array_equal(value, before[name], err_msg=name)
