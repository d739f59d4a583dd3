"""The reference is the oracle: it passes the conformance suite itself, and agrees with finite differences."""

import numpy as np
import pytest

from backends import draws, get, weights
from backends.activations import ACTIVATIONS
from backends.conformance import BATCH, TASKS, Conformance, make_data, make_trial


class TestReference(Conformance):
    backend = "reference"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_delta_rule_is_the_slope_of_the_objective(task, activation):
    trial = make_trial(task, activation=activation, slope=0.2, l1=1e-3, l2=2e-3, dropout=0.3, input_dropout=0.2)
    data = make_data(task)
    stack = get("reference").stack([trial], data)
    keys = draws.noise_keys([trial.seed], [5], 3)[:, 0]

    def objective(flat):
        seen = stack.loss_and_gradients(flat, data.X[:BATCH], data.y[:BATCH], keys)
        return (seen.loss + seen.penalty)[0]

    flat = weights.initial([trial])
    exact = stack.loss_and_gradients(flat, data.X[:BATCH], data.y[:BATCH], keys).gradient[0]
    for place in range(flat.shape[1]):
        nudge = np.zeros_like(flat)
        nudge[0, place] = 1e-6
        slope = (objective(flat + nudge) - objective(flat - nudge)) / 2e-6
        # A bias of 0 stands on the kink of |w|, but biases are not penalised; the drawn weights stand on no kink.
        assert slope == pytest.approx(exact[place], abs=2e-8)


def test_delta_is_the_slope_of_a_rows_loss_by_its_local_field():
    """δ_j = -∂ℓ/∂v_j: moving a bias moves v of every row, so the mean of δ over rows is -∂E/∂b."""
    trial, data = make_trial("multiclass", activation="tanh"), make_data("multiclass")
    stack = get("reference").stack([trial], data)
    seen = stack.loss_and_gradients(weights.initial([trial]), data.X[:BATCH], data.y[:BATCH], None)
    for slot in weights.layout(trial):
        if slot.name == "bias":
            np.testing.assert_allclose(-seen.delta[slot.layer][0].mean(axis=0), seen.gradient[0, slot.start : slot.stop])


def test_output_delta_reduces_to_d_minus_y_for_cross_entropies():
    for task in ("binary", "multiclass"):
        trial, data = make_trial(task), make_data(task)
        seen = get("reference").stack([trial], data).loss_and_gradients(weights.initial([trial]), data.X, data.y, None)
        z = seen.logits[0]
        y = 1 / (1 + np.exp(-z)) if task == "binary" else np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        d = data.y[:, None] if task == "binary" else np.eye(3)[data.y]
        np.testing.assert_allclose(seen.delta[-1][0], d - y, atol=1e-12)
