"""The reference is the oracle: it passes the conformance suite itself, and agrees with finite differences."""

import numpy as np
import pytest

from backends import draws, get, weights
from backends.activations import ACTIVATIONS, numerics
from backends.base import Chunk
from backends.conformance import BATCH, INPUTS, OPTIMIZERS, TASKS, Conformance, make_data, make_trial
from backends.conformance.cases import CASE_OPTIMIZERS
from backends.optimizers import RULES, corrections


class TestReference(Conformance):
    backend = "reference"
    # Of the reference itself these would say nothing: it is what runs are held against.
    test_free_running_in_float64_it_follows_the_reference = None
    test_free_running_in_float32_outputs_and_objective_follow_the_reference = None


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


# -- worked out by other means than the reference's own lines -------------------------------------------------------------


def torchs(optimizer, theta, eta):
    """The optimizer of the same name in PyTorch, which is known to follow the same papers."""
    import torch

    o, kinds = optimizer, torch.optim
    numbers = {
        "sgd": lambda: {"momentum": o.momentum, "nesterov": o.nesterov},
        "rmsprop": lambda: {"alpha": o.rho, "eps": o.epsilon},
    }
    adam = {"betas": (getattr(o, "beta1", 0), getattr(o, "beta2", 0)), "eps": getattr(o, "epsilon", 0)}
    numbers |= {"adam": lambda: adam, "adamw": lambda: adam | {"weight_decay": o.weight_decay}}
    kind = {"sgd": kinds.SGD, "adam": kinds.Adam, "adamw": kinds.AdamW, "rmsprop": kinds.RMSprop}[o.name]
    return kind([theta], lr=eta, **numbers[o.name]())


@pytest.mark.parametrize("name", CASE_OPTIMIZERS)
def test_optimizers_take_the_steps_of_pytorchs(name):
    torch = pytest.importorskip("torch")
    optimizer, eta = CASE_OPTIMIZERS[name](1, 1), 0.03
    words = draws.raw_words(1, 60, 0, 31 * 8).reshape(31, 8) * 2.0**-64
    theta, gradients = words[0] - 0.5, (words[1:] - 0.5) * 10.0 ** np.arange(-9, -1)  # so small that ε and its place are seen
    slots = {slot: np.zeros(8) for slot in RULES[optimizer.name].slots}
    numbers = {name: getattr(optimizer, name) for name in ("momentum", "weight_decay") if hasattr(optimizer, name)}
    other = torch.tensor(theta).requires_grad_()
    stepper = torchs(optimizer, other, eta)
    for t, g in enumerate(gradients, 1):
        numbers["correction1"], numbers["correction2"] = corrections(optimizer, t - 1, 1)[0]
        theta, slots = RULES[optimizer.name].step(numerics, optimizer, theta, g, slots, eta, numbers)
        other.grad = torch.tensor(g)
        stepper.step()
        np.testing.assert_allclose(theta, other.detach().numpy(), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("clip", [None, 0.5, 100.0])
def test_a_step_of_linear_regression_is_the_one_on_paper(clip):
    """W - η·g·min(1, c/‖g‖) with g = 2/B Xᵀ(XW + b - d) + λ1 sign(W) + 2 λ2 W, and no penalty on b."""
    trial = make_trial("regression", hidden=(), outputs=1, l1=0.1, l2=0.2, clip_norm=clip, optimizer=OPTIMIZERS["sgd"])
    data, rows = make_data("regression", 1), np.array([5, 2, 60])
    stack = get("reference").stack([trial], data)
    W, b = np.linspace(-1, 1, INPUTS), 0.7
    stack.load(stack.state() | {"weights": np.append(W, b)[None]})
    losses = stack.run(Chunk(0, 0, rows[None, None], draws.noise_keys([3], [0], 1), np.array([[0.01]])))
    X, error = data.X[rows], data.X[rows] @ W + b - data.y[rows, 0]
    g = np.append(2 / 3 * X.T @ error + 0.1 * np.sign(W) + 0.4 * W, 2 * error.mean())
    g *= min(1, (clip or np.inf) / np.sqrt((g**2).sum()))
    np.testing.assert_allclose(stack.weights()[0], np.append(W, b) - 0.01 * g, rtol=1e-13)
    assert losses.loss[0, 0] == pytest.approx((error**2).mean())
    assert losses.penalty[0, 0] == pytest.approx(0.1 * np.abs(W).sum() + 0.2 * (W**2).sum())


def test_a_hidden_output_is_dropped_after_its_activation_and_scaled_where_it_is_kept():
    trial = make_trial("regression", hidden=(6,), outputs=1, activation="sigmoid", dropout=0.4, input_dropout=0.2)
    data, keys = make_data("regression", 1), draws.noise_keys([3], [8], 2)[:, 0]
    flat = weights.initial([trial])
    seen = get("reference").stack([trial], data).loss_and_gradients(flat, data.X[:5], data.y[:5], keys)
    W1, b1, W2, b2 = (value[0] for value in weights.unpack(trial, flat).values())

    def kept(place, units, p):
        return (draws.noise(keys[0, place], 5, units) / 2.0**32 >= p) / (1 - p)

    y = 1 / (1 + np.exp(-((data.X[:5] * kept(0, INPUTS, 0.2)) @ W1 + b1)))
    np.testing.assert_allclose(seen.logits[0], (y * kept(1, 6, 0.4)) @ W2 + b2, rtol=1e-13)


@pytest.mark.parametrize(("activation", "slope", "limit"), [
    ("tanh", lambda v: 1 - np.tanh(v) ** 2, 0.05), ("relu", lambda v: (v > 0) * 1.0, 0.05),
    ("silu", lambda v: (1 + np.exp(-v) + v * np.exp(-v)) / (1 + np.exp(-v)) ** 2, 0.05 * 1.0998),
])  # fmt: skip
def test_signals_are_what_their_names_say(activation, slope, limit):
    trial, data = make_trial("regression", hidden=(6,), activation=activation, dropout=0.3), make_data("regression", rows=1100)
    stack = get("reference").stack([trial], data)
    flat = 4 * stack.weights()
    W1, b1, W2, b2 = (value[0] for value in weights.unpack(trial, flat).values())
    b1[:2] = -50
    stack.load(stack.state() | {"weights": flat})
    X, d = data.X[:1024], data.y[:1024]
    v = X @ W1 + b1
    out = 2 * (d - (ACTIVATIONS[activation].value(numerics, v, 0.01) @ W2 + b2)) / 2
    hidden = slope(v) * (out @ W2.T)
    found = stack.probe()
    np.testing.assert_allclose(found.delta[0], [np.sqrt((hidden**2).mean()), np.sqrt((out**2).mean())], rtol=1e-12)
    assert found.saturated[0] == pytest.approx([(np.abs(slope(v)) < limit).mean()])
    dead = {"tanh": 2 / 6, "relu": 2 / 6, "silu": 0}[activation]  # tanh' is 0 in float64 that far out; silu' is not
    assert found.dead[0] == pytest.approx([dead])


@pytest.mark.parametrize("task", TASKS)
def test_losses_are_those_on_paper(task):
    trial, data = make_trial(task), make_data(task)
    flat = weights.initial([trial])
    bias = weights.layout(trial)[-1]
    flat[0, bias.start : bias.stop] = np.linspace(3, -3, bias.stop - bias.start)
    seen = get("reference").stack([trial], data).loss_and_gradients(flat, data.X, data.y, None)
    z, y = seen.logits[0], data.y
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    paper = {
        "regression": lambda: (z - y) ** 2,  # the mean over rows and targets
        "binary": lambda: np.where(y == 1, np.log1p(np.exp(-z[:, 0])), np.log1p(np.exp(z[:, 0]))),
        "multiclass": lambda: -np.log(p[np.arange(len(y)), y]),
    }[task]()
    assert seen.loss[0] == pytest.approx(paper.mean(), rel=1e-12)
    far = get("reference").stack([trial], data).loss_and_gradients(300 * flat, data.X, data.y, None)
    assert np.isfinite(far.loss).all() and np.isfinite(far.gradient).all()
