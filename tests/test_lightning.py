"""The lightning backend: the shipped conformance suite, and what is Lightning's own."""

import logging
import os
import signal
import threading
from typing import ClassVar, get_args

import numpy as np
import pytest

pytest.importorskip("pytorch_lightning")

import torch
from sklearn.datasets import load_digits

from backends import BackendError, draws, get, weights
from backends.activations import ACTIVATIONS, numerics
from backends.base import Chunk, Data, Machine
from backends.conformance import TASKS, Conformance, make_data, make_trial
from backends.lightning import activations, batches, loop, noise, optimizer
from backends.lightning import stack as stacks
from backends.lightning.network import to_torch
from backends.lightning.optimizer import LossScale
from backends.lightning.stack import PREDICT_ROWS, LightningStack
from backends.spec import SGD, ActivationName, Adam, AdamW
from backends.supervisor import Supervisor, fit

EVERY_ACTIVATION = sorted(get_args(ActivationName))


class TestLightning(Conformance):
    """On the processor, a stack equals its solo runs to the bit; test_gpu.py says what holds on a GPU."""

    backend = "lightning"
    if not torch.cuda.is_available():
        stack_tolerance: ClassVar[dict[str, float]] = {"float32": 0.0, "float64": 0.0}


def deal(trials, count=4, steps=3, size=16, rows=70):
    """Some chunks such as a supervisor deals them."""
    seeds = [seed for seed, _ in draws.streams(trials)[0]]
    for number in range(count):
        first = number * steps
        order = np.stack([draws.row_order(seed, number, rows)[: steps * size].reshape(steps, size) for seed in seeds])
        keys = draws.noise_keys(seeds, range(first, first + steps), len(trials[0].dropout))
        yield Chunk(number, first, order, keys, np.full((len(trials), steps), 0.01))


def make_stack(trials=None, task="multiclass"):
    return get("lightning").stack(trials or [make_trial(task, dropout=0.2, l1=1e-3)], make_data(task))


def ignore(chunk, losses):
    pass


# -- noise and activations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "units"), [(1, 1), (3, 5), (32, 129), (1000, 77)])
def test_noise_is_the_draws_noise_bit_for_bit(rows, units):
    keys = np.concatenate([draws.noise_keys([0, 5, 2**32 - 1], [0, 1, 2**31], 3), np.full((1, 3, 3, 2), 2**32 - 1, np.uint32)])
    found = noise.noise(noise.upload(keys, torch.device("cpu")), rows, units).numpy().view(np.uint32)
    np.testing.assert_array_equal(found, draws.noise(keys, rows, units))


# 989 is one of the 60 000 words, and a word on the threshold is kept.
@pytest.mark.parametrize("p", [0.0, 2**-24, 989 * 2**-24, 0.3, 0.999999])
def test_outputs_are_dropped_where_the_hash_says_so_and_scaled_elsewhere(p):
    keys = draws.noise_keys([3], [9], 1)[0, 0]
    threshold, scale = torch.tensor(draws.threshold(p), dtype=torch.int32), torch.tensor(1 / (1 - p))
    found = noise.multipliers(noise.noise(noise.upload(keys, torch.device("cpu")), 200, 300), threshold, scale).numpy()
    dropped = (draws.noise(keys, 200, 300) >> np.uint32(8)) < draws.threshold(p)
    np.testing.assert_array_equal(found, np.where(dropped, np.float32(0), scale.numpy()))


@pytest.mark.parametrize("name", EVERY_ACTIVATION)
@pytest.mark.parametrize("a", [0.0, 0.01, 1.5])
def test_an_activation_and_its_slope_are_the_tables_at_zero_and_far_out_too(name, a):
    points = np.array(
        [0.0, -0.0, 5e-324, -5e-324, 1e-9, -1e-9, 0.3, -0.3, 2, -2, 15, -15, 25, -25, 45, -45, 800, -800, 1e30, -1e30]
    )
    v, slopes = torch.tensor(points).view(1, 1, -1), torch.full((1, 1, 1), a, dtype=torch.float64)
    y = activations.value(name, v, slopes)

    with np.errstate(all="ignore"):
        value = ACTIVATIONS[name].value(numerics, points, a)
        slope = ACTIVATIONS[name].slope(numerics, points, a) + 0 * points
    np.testing.assert_allclose(y.numpy()[0, 0], value, rtol=4e-16, atol=3e-16)
    for known in (y, None):
        np.testing.assert_allclose(activations.slope(name, v, slopes, known).numpy()[0, 0], slope, rtol=4e-16, atol=3e-16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", EVERY_ACTIVATION)
def test_an_activation_does_not_depend_on_where_a_number_lies_in_an_array(name, dtype):
    words = draws.raw_words(1, 50, 0, 64 * 31 * 11).reshape(64, 31, 11) * 2.0**-64
    v = torch.tensor(8 * words - 4, dtype=dtype)
    slopes = torch.full((64, 1, 1), 0.1, dtype=dtype)
    for function in (activations.value, activations.slope):
        together = function(name, v, slopes)
        alone = torch.cat([function(name, v[k : k + 1].clone(), slopes[k : k + 1]) for k in range(64)])
        assert torch.equal(together, alone)


# -- stacks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("hidden", [(9, 5), (3,), ()])
def test_a_trial_has_the_same_bits_in_a_stack_whatever_its_activation_clipping_and_sizes(task, precision, hidden):
    changes = {"hidden": hidden, "precision": precision, "epochs": 2, "clip_norm": 0.5, "batch_size": 15}
    mixed = [{"l1": 1e-3, "dropout": 0.1}, {"l2": 1e-3, "dropout": 0.2}, {}]
    trials = [make_trial(task, activation=name, seed=n % 2, **mixed[n % 3], **changes) for n, name in enumerate(EVERY_ACTIVATION)]
    data = make_data(task)
    for trial, beside in zip(trials, fit(get("lightning"), trials, data), strict=True):
        alone = fit(get("lightning"), [trial], data)[0]
        assert alone.history == beside.history
        np.testing.assert_array_equal(alone.weights, beside.weights)


def test_a_stack_whose_trials_share_a_seed_shares_their_rows_and_noise():
    stack = make_stack([make_trial("multiclass", dropout=0.2), make_trial("multiclass", dropout=0.5)])
    batch = next(stack.batches.of(next(deal(stack.trials))))
    assert len(batch.x) == 1
    dropped = [(mask == 0).numpy() for mask in batch.masks[1]]
    assert dropped[0].any() and (dropped[1] >= dropped[0]).all()  # what p = 0.2 drops, p = 0.5 drops too


def test_no_bit_depends_on_how_many_steps_are_made_ready_at_a_time(monkeypatch):
    trials = [make_trial("binary", dropout=0.3, input_dropout=0.1, seed=seed) for seed in (1, 2, 1)]
    found = []
    for numbers in (1, 2**20):
        monkeypatch.setattr(batches, "BLOCK_NUMBERS", numbers)
        stack = make_stack(trials, "binary")
        found.append([*(stack.run(chunk).loss for chunk in deal(trials)), stack.weights()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_trials_that_are_kept_go_on_as_if_they_had_always_been_alone():
    trials = [make_trial("multiclass", activation=a, dropout=0.3, seed=s) for a, s in (("relu", 1), ("tanh", 2), ("tanh", 1))]
    stack, alone = make_stack(trials), make_stack([trials[2], trials[0]])
    chunks, own = list(deal(trials)), list(deal([trials[2], trials[0]]))
    for chunk, other in zip(chunks[:2], own[:2], strict=True):
        stack.run(chunk)
        alone.run(other)
    stack.keep([2, 0])
    for other in own[2:]:
        np.testing.assert_array_equal(stack.run(other).loss, alone.run(other).loss)
    for name, value in stack.state().items():
        np.testing.assert_array_equal(value, alone.state()[name])


def test_many_rows_are_predicted_in_parts_of_a_fixed_size():
    stack, X = make_stack(), np.tile(make_data("multiclass").X, (100, 1))
    assert len(X) > 3 * PREDICT_ROWS
    parts = [stack.predict(X[start : start + PREDICT_ROWS]) for start in range(0, len(X), PREDICT_ROWS)]
    np.testing.assert_array_equal(stack.predict(X), np.concatenate(parts, axis=1))
    assert stack.predict(X[:0]).shape == (1, 0, 3)


def test_a_state_of_other_trials_is_refused():
    state = make_stack([make_trial("multiclass")]).state()
    with pytest.raises(ValueError, match=r"state\['weights'\] must be \(2, "):
        make_stack([make_trial("multiclass"), make_trial("multiclass", l1=1e-3)]).load(state)


def test_data_that_cannot_be_written_to_are_taken():
    data = make_data("multiclass")
    for values in (data.X, data.y):
        values.flags.writeable = False
    fit(get("lightning"), [make_trial("multiclass", epochs=1)], data)


def test_the_process_gets_its_number_of_threads_back(monkeypatch):
    before = torch.get_num_threads()
    seen = []
    stack = get("lightning").stack([make_trial("binary")], make_data("binary"), Machine(threads=before + 1))
    forward = stack.network.forward
    monkeypatch.setattr(stack.network, "forward", lambda *given: seen.append(torch.get_num_threads()) or forward(*given))
    stack.run(next(deal(stack.trials)))
    assert set(seen) == {before + 1} and torch.get_num_threads() == before


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_fused_step_has_the_same_bits_in_a_stack_and_is_the_elementwise_step(kind, precision, monkeypatch):
    rates, data = (1e-2, 3e-3, 1e-3), make_data("multiclass")
    made = [kind(name=kind.__name__.lower(), learning_rate=rate) for rate in rates]
    trials = [make_trial("multiclass", optimizer=o, l1=1e-3, precision=precision, epochs=2, hidden=(9, 5)) for o in made]
    elementwise = [result.weights for result in fit(get("lightning"), trials, data)]
    monkeypatch.setattr(optimizer, "FUSED_FROM", 1)
    monkeypatch.setattr(stacks, "CACHED_NUMBERS", 1)  # and the penalty goes trial by trial
    for trial, beside, plain in zip(trials, fit(get("lightning"), trials, data), elementwise, strict=True):
        np.testing.assert_array_equal(fit(get("lightning"), [trial], data)[0].weights, beside.weights)
        np.testing.assert_allclose(beside.weights, plain, rtol=0, atol={"float32": 2e-5, "float64": 1e-12}[precision])


# -- mixed precision ------------------------------------------------------------------------------------------------------


class OnTheProcessor:
    """The backend without its refusal of float16 where there is no GPU: slow there, but the same arithmetic."""

    def stack(self, trials, data=None, machine=None):
        return LightningStack(trials, data, machine or Machine(), torch.device("cpu"))


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    order = draws.row_order(0, 0, len(X))
    X, y = X[order] / 16, y[order]
    return Data(X[:1200], y[:1200], X[1200:], y[1200:])


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_mixed_precision_learns_as_float32_does(precision, activation, digits):
    """Each epoch's losses within 0.01, accuracies within 0.01; bfloat16 has 8 bits, so a product is known to 1 in 256."""

    def accuracy(outputs):
        return {"accuracy": float((outputs.argmax(1) == digits.y_valid).mean())}

    changes = {"hidden": (128, 64), "activation": activation, "dropout": 0.2, "l2": 1e-4, "batch_size": 32, "epochs": 12}
    mixed, plain = (
        fit(backend, [digits_trial(precision=p, **changes)], digits, metrics=accuracy)[0]
        for backend, p in ((OnTheProcessor(), precision), (get("lightning"), "float32"))
    )
    assert mixed.best["val_accuracy"] > 0.95 and mixed.weights.dtype == np.float32
    for one, other in zip(mixed.history, plain.history, strict=True):
        for name in ("train_loss", "train_penalty", "val_loss", "val_accuracy"):
            assert one[name] == pytest.approx(other[name], abs=0.01), (name, one["epoch"])
    assert mixed.history[0]["train_loss"] != plain.history[0]["train_loss"]


def digits_trial(**changes):
    return make_trial("multiclass", inputs=64, outputs=10, optimizer=Adam(name="adam"), **changes)


@pytest.mark.parametrize("name", ["bf16-mixed", "16-mixed"])
def test_products_are_made_in_16_bits_when_training_and_in_float32_when_looking(name):
    trial, data = make_trial("multiclass", precision=name), make_data("multiclass")
    mixed = OnTheProcessor().stack([trial], data)
    plain = get("lightning").stack([make_trial("multiclass", precision="float32")], data)
    np.testing.assert_array_equal(mixed.predict(), plain.predict())
    np.testing.assert_array_equal(mixed.probe().delta, plain.probe().delta)
    arguments = (plain.weights(), data.X[:16], data.y[:16], None)
    found, expected = mixed.loss_and_gradients(*arguments), plain.loss_and_gradients(*arguments)
    error = np.abs(found.gradient - expected.gradient).max() / np.abs(expected.gradient).max()
    step = {"bf16-mixed": 2.0**-8, "16-mixed": 2.0**-11}[name]
    assert step / 20 < error < 4 * step


def rounded(precision):
    """To the nearest number of 16 bits, ties to even, as float32."""

    def to_bfloat16(x):
        words = np.ascontiguousarray(x, np.float32).view(np.uint32)
        return ((words + np.uint32(0x7FFF) + ((words >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)).view(np.float32)

    return to_bfloat16 if precision == "bf16-mixed" else lambda x: x.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_products_alone_are_in_16_bits_and_sums_weights_and_steps_in_float32(precision):
    """Worked out in NumPy. Where a product lies between two numbers of 16 bits, the order of its sum decides, hence a share."""
    trial = make_trial("regression", hidden=(9, 5), precision=precision, optimizer=SGD(name="sgd", learning_rate=0.1))
    data, half, B = make_data("regression"), rounded(precision), 16
    stack, scale = OnTheProcessor().stack([trial], data), np.float32(1)
    if precision == "16-mixed":
        stack.scaling.scale.fill_(scale := np.float32(2.0**10))
    before, X, d = stack.weights(), np.float32(data.X[:B]), np.float32(data.y[:B])
    W1, b1, W2, b2, W3, b3 = (value[0] for value in weights.unpack(trial, before).values())

    def times(a, b):
        return half(half(a) @ half(b))

    y1 = np.maximum(v1 := times(X, W1) + b1, 0)
    y2 = np.maximum(v2 := times(y1, W2) + b2, 0)
    e3 = (times(y2, W3) + b3 - d) * (scale / np.float32(B))
    e2 = times(e3, W3.T) * (v2 > 0)
    e1 = times(e2, W2.T) * (v1 > 0)
    parts = [(X, e1), (y1, e2), (y2, e3)]
    expected = np.concatenate([np.append(times(y.T, e).ravel(), e.sum(0)) for y, e in parts]) / scale
    found = stack.loss_and_gradients(before, data.X[:B], data.y[:B], None)
    assert found.loss[0] == pytest.approx(np.mean((times(y2, W3) + b3 - d) ** 2), rel=1e-6)
    assert (~np.isclose(found.gradient[0], expected, rtol=1e-5, atol=0)).mean() < 0.02
    losses = stack.run(Chunk(0, 0, np.arange(B)[None, None], draws.noise_keys([3], [0], 3), np.array([[0.1]])))
    assert losses.loss[0, 0] == pytest.approx(found.loss[0], rel=1e-6)
    np.testing.assert_allclose(stack.weights(), before - np.float32(0.1) * found.gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_resumes_to_the_same_bits(precision):
    trials, data = [make_trial("binary", precision=precision, dropout=0.2, epochs=2, seed=s) for s in (1, 2)], make_data("binary")
    through, half = (Supervisor(OnTheProcessor(), trials, data) for _ in range(2))
    through.run()
    half.run(until_step=7)
    rest = Supervisor(OnTheProcessor(), trials, data, resume=half.checkpoint())
    rest.run()
    if precision == "16-mixed":
        assert rest.stack.state()["scaling.good"].max() == 10  # of all the steps, not of the last three
    for name, value in through.stack.state().items():
        np.testing.assert_array_equal(value, rest.stack.state()[name])


def test_gradients_below_the_smallest_float16_are_not_lost():
    # Inputs of 1e-5 and a loss of 1e-3: without a scale, what flows back through 3 products is below 6e-8.
    trial, data = make_trial("regression", precision="16-mixed", hidden=(8, 8), activation="tanh"), make_data("regression")
    stack = OnTheProcessor().stack([trial], data)
    arguments = (weights.initial([trial]) * 0.05, data.X[:16], data.y[:16] * 1e-3, None)
    scaled = stack.loss_and_gradients(*arguments).gradient
    stack.scaling.scale.fill_(1.0)
    unscaled = stack.loss_and_gradients(*arguments).gradient
    expected = get("reference").stack([trial]).loss_and_gradients(*arguments).gradient
    first = slice(0, 7 * 8)  # the first layer's weights, farthest from the loss
    size = np.abs(expected[:, first]).max()
    assert np.abs(scaled - expected)[:, first].max() < 0.01 * size < np.abs(unscaled - expected)[:, first].max()


def test_a_trial_whose_gradient_overflows_skips_its_step_alone_and_halves_its_scale():
    trials = [make_trial("binary", precision="16-mixed", seed=seed) for seed in (1, 2)]
    stack, calm = (OnTheProcessor().stack(trials, make_data("binary")) for _ in range(2))
    chunks = list(deal(trials, count=1, steps=1))
    for each in (stack, calm):
        each.scaling.scale.fill_(2.0**10)
    stack.scaling.scale[1] = 2.0**40
    before = stack.state()
    stack.run(chunks[0])
    calm.run(chunks[0])
    for name, value in stack.state().items():
        np.testing.assert_array_equal(value[0], calm.state()[name][0])
        if not name.startswith("scaling"):
            np.testing.assert_array_equal(value[1], before[name][1])
    assert stack.scaling.scale.flatten().tolist() == [2.0**10, 2.0**24]  # halved, then at most the highest


def test_the_scale_doubles_after_many_good_steps_and_halves_after_a_bad_one():
    scale = LossScale(2, torch.device("cpu"))
    sound, bad = torch.tensor([[True], [True]]), torch.tensor([[True], [False]])
    for _ in range(1999):
        scale._adapt(sound)
    assert scale.scale.flatten().tolist() == [2.0**16] * 2
    scale._adapt(bad)
    assert scale.scale.flatten().tolist() == [2.0**17, 2.0**15]
    for _ in range(1999):
        scale._adapt(sound)
    assert scale.scale.flatten().tolist() == [2.0**17, 2.0**15]
    scale._adapt(sound)
    assert scale.scale.flatten().tolist() == [2.0**18, 2.0**16]
    for _ in range(50):
        scale._adapt(torch.tensor([[False], [False]]))
    assert scale.scale.flatten().tolist() == [1.0, 1.0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it is allowed")
def test_float16_without_a_gpu_is_refused_with_a_way_out():
    trial = make_trial("binary", precision="16-mixed")
    with pytest.raises(BackendError, match=r"16-mixed needs a GPU, found none; set train\.precision: bf16-mixed, or"):
        get("lightning").stack([trial], make_data("binary"))


@pytest.mark.parametrize("name", ["reference", "keras"])
def test_other_backends_refuse_to_train_in_mixed_precision_but_predict_with_its_weights(name):
    trial, data = make_trial("binary", precision="bf16-mixed", epochs=1), make_data("binary")
    with pytest.raises(BackendError, match=f"must be float32 or float64 for the {name} backend, got bf16-mixed; set"):
        get(name).stack([trial], data)
    result = fit(get("lightning"), [trial], data)[0]
    outputs = []
    for backend in (name, "lightning"):
        stack = get(backend).stack([trial])
        stack.load({"weights": result.weights[None]})
        outputs.append(stack.predict(data.X_valid))
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)


# -- a plain torch.nn.Sequential ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
@pytest.mark.parametrize("name", EVERY_ACTIVATION)
def test_the_plain_module_predicts_what_the_reference_predicts(name, precision, tolerance):
    trial = make_trial("multiclass", activation=name, precision=precision, slope=0.3, dropout=0.2, input_dropout=0.1)
    flat, X = 3 * weights.initial([trial])[0] + 0.1, 10 * make_data("multiclass").X  # local fields up to a hundred and more
    stack = get("reference").stack([trial])
    stack.load({"weights": flat[None]})
    expected = stack.predict(X)[0]
    with torch.no_grad():
        found = to_torch(trial, flat)(torch.tensor(X.astype(precision))).numpy()
    assert found.dtype == precision
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_the_plain_module_is_made_of_torchs_own_layers_and_trains_on():
    trial = make_trial("binary", dropout=(0.0, 0.4), input_dropout=0.1, slope=0.2, activation="leaky_relu", precision="float32")
    model = to_torch(trial, weights.initial([trial])[0])
    kinds = ["Dropout", "Linear", "LeakyReLU", "Linear", "LeakyReLU", "Dropout", "Linear"]
    assert [type(module).__name__ for module in model] == kinds and not model.training
    assert (model[0].p, model[2].negative_slope, model[5].p) == (0.1, 0.2, 0.4)
    assert [tuple(value.shape) for value in model.state_dict().values()] == [(9, 7), (9,), (5, 9), (5,), (1, 5), (1,)]
    torch.nn.functional.binary_cross_entropy_with_logits(model(torch.ones(3, 7)), torch.ones(3, 1)).backward()
    assert all(value.grad is not None for value in model.parameters())


def test_the_plain_module_shares_nothing_with_the_weights_and_draws_no_random_numbers():
    trial = make_trial("regression", hidden=())
    flat, state = weights.initial([trial])[0], torch.get_rng_state()
    model, before = to_torch(trial, flat), flat.copy()
    with torch.no_grad():
        model[0].weight.zero_()
    np.testing.assert_array_equal(flat, before)
    assert torch.equal(torch.get_rng_state(), state)


# -- Lightning drives -----------------------------------------------------------------------------------------------------


def test_the_next_chunk_is_asked_for_only_when_the_last_one_was_reported():
    stack, events = make_stack(), []

    def chunks():
        for chunk in deal(stack.trials):
            events.append(("asked", chunk.epoch))
            yield chunk
        events.append(("asked", "none left"))

    stack.drive(chunks(), lambda chunk, losses: events.append(("reported", chunk.epoch)))
    expected = [(what, n) for n in range(4) for what in ("asked", "reported")]
    assert events == [*expected, ("asked", "none left")]


def test_lightning_drives_to_the_same_bits_as_run():
    driven, alone, reported = make_stack(), make_stack(), []
    driven.drive(deal(driven.trials), lambda chunk, losses: reported.append(losses))
    for chunk, losses in zip(deal(alone.trials), reported, strict=True):
        np.testing.assert_array_equal(alone.run(chunk).loss, losses.loss)
    np.testing.assert_array_equal(driven.weights(), alone.weights())


def test_a_stack_can_be_driven_again_and_without_a_single_chunk():
    stack, once = make_stack(), make_stack()
    chunks = list(deal(stack.trials))
    for part in ([], chunks[:1], chunks[1:], []):
        stack.drive(part, ignore)
    once.drive(chunks, ignore)
    np.testing.assert_array_equal(stack.weights(), once.weights())


class OwnError(Exception):
    pass


@pytest.mark.parametrize("error", [OwnError("x"), StopIteration(), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("where", ["report", "second report", "run"])
def test_an_error_comes_out_of_drive_as_it_is(error, where):
    stack, calls = make_stack(), []

    def report(chunk, losses):
        calls.append(chunk)
        if where == "report" or (where == "second report" and len(calls) == 2):
            raise error

    if where == "run":
        stack.run = lambda chunk: (_ for _ in ()).throw(error) if not isinstance(error, StopIteration) else next(iter(()))
    with pytest.raises(type(error)) as caught:
        stack.drive(deal(stack.trials), report)
    assert caught.value is error or (where == "run" and isinstance(error, StopIteration))
    assert len(calls) == {"report": 1, "second report": 2, "run": 0}[where]


def test_an_error_among_the_chunks_comes_out_of_drive_as_it_is():
    stack, error = make_stack(), OwnError("x")

    def chunks():
        yield from list(deal(stack.trials))[:1]
        raise error

    with pytest.raises(OwnError) as caught:
        stack.drive(chunks(), ignore)
    assert caught.value is error


@pytest.mark.parametrize("when", ["in a report", "between chunks", "before the first"])
def test_ctrl_c_leaves_drive_as_a_keyboard_interrupt_and_can_be_pressed_again(when, monkeypatch):
    def press(*_):
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(5)

    hooks = {"between chunks": "on_train_batch_start", "before the first": "on_fit_start"}
    if when in hooks:
        monkeypatch.setattr(loop.StackModule, hooks[when], press)
    for _ in range(2):
        stack = make_stack()
        with pytest.raises(KeyboardInterrupt):
            stack.drive(deal(stack.trials), press if when == "in a report" else ignore)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_stay_the_programs_own_while_lightning_drives():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before, seen = [signal.getsignal(n) for n in numbers], []
    stack = make_stack()
    stack.drive(deal(stack.trials), lambda chunk, losses: seen.append([signal.getsignal(n) for n in numbers]))
    assert seen == [before] * 4
    assert [signal.getsignal(n) for n in numbers] == before


def test_lightning_drives_in_a_thread_too():
    driven, alone = make_stack(), make_stack()
    thread = threading.Thread(target=driven.drive, args=(deal(driven.trials), ignore))
    thread.start()
    thread.join()
    alone.drive(deal(alone.trials), ignore)
    np.testing.assert_array_equal(driven.weights(), alone.weights())


def test_lightning_says_nothing_writes_nothing_and_leaves_its_loggers_as_they_were(tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("pytorch_lightning")
    monkeypatch.setattr(logger, "propagate", True)
    level = logger.level
    stack = make_stack()
    with caplog.at_level(logging.DEBUG):
        stack.drive(deal(stack.trials), ignore)
    assert (*capfd.readouterr(), caplog.text) == ("", "", "") and not list(tmp_path.iterdir())
    assert logger.level == level


def test_a_slurm_allocation_is_not_lightnings_to_interpret(monkeypatch):
    for name, value in {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "study", "SLURM_JOB_ID": "7", "SLURM_PROCID": "1"}.items():
        monkeypatch.setenv(name, value)
    stack, reported = make_stack(), []
    stack.drive(deal(stack.trials), lambda chunk, losses: reported.append(chunk.epoch))
    assert reported == [0, 1, 2, 3]


def test_the_random_numbers_of_the_program_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(get("lightning"), [make_trial("binary", dropout=0.3, epochs=1)], make_data("binary"))
    assert torch.equal(torch.rand(3), expected)


def test_regression_rows_may_be_many_and_wide():
    X = draws.raw_words(1, 50, 0, 3000 * 7).reshape(-1, 7) * 2.0**-64
    data = Data(X[:2500], X[:2500, :2], X[2500:], X[2500:, :2])
    for mine, expected in zip(
        *(fit(get(n), [make_trial("regression", epochs=1)], data) for n in ("lightning", "reference")), strict=True
    ):
        assert mine.history[0] == pytest.approx(expected.history[0], rel=1e-9)
