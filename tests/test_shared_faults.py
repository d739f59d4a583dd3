"""Faults of what all backends share, and of the reference: no comparison of backends can see them.

They are planted into these functions themselves, one at a time, and a test with expectations of its own must see each.
"""

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import test_activations
import test_class_weights
import test_conformance_teeth
import test_draws
import test_folds
import test_reference
import test_supervisor
import test_weights

from backends import activations, base, draws, losses, optimizers, supervisor, weights
from backends.conformance import Conformance
from backends.reference import Reference, delta
from backends.reference.stack import ReferenceStack
from backends.spec import Dense
from backends.supervisor import Supervisor

SUITE = Conformance()


class Shared(NamedTuple):
    """In `owner.name`, `old` becomes `new`, and the test `seen_by` fails, called with `arguments`."""

    what: str
    owner: Any
    name: str
    old: str
    new: str
    seen_by: Callable[..., None]
    arguments: tuple[Any, ...] = ()


def by_hand(clip=0.5):
    test_reference.test_a_step_of_linear_regression_is_the_one_on_paper(clip)


def by_differences(activation="tanh", task="regression"):
    test_reference.test_the_delta_rule_is_the_slope_of_the_objective(task=task, activation=activation)


def resuming(tmp_path):
    for precision in ("float32", "float64"):
        SUITE.test_stopped_at_any_step_it_resumes_to_the_same_bits(Reference(), precision, tmp_path)
    SUITE.test_it_resumes_to_the_same_bits_after_trials_ended_and_the_stack_was_rebuilt(Reference(), tmp_path)


def in_folds():
    for task in ("multiclass", "regression"):
        SUITE.test_trials_of_several_folds_equal_their_solo_runs_on_the_rows_of_their_fold(Reference(), task, "float64")


DEALT = test_supervisor.test_an_epoch_deals_every_row_once_in_the_order_of_the_draws_and_keeps_the_short_batch
SCHEDULES = test_supervisor.test_schedules_give_the_learning_rate_of_every_step
ENDED = test_supervisor.test_a_trial_that_ended_has_learning_rate_zero_until_the_stack_is_half_empty_and_rebuilt
BEST = test_supervisor.test_the_best_epoch_is_the_first_of_equals_and_its_weights_are_the_model
NO_NUMBER = test_supervisor.test_a_loss_that_is_no_number_ends_its_trial_at_that_step_with_the_reason
UNCORRELATED = test_draws.test_noise_is_uncorrelated_between_neighbouring
UNIFORM = test_draws.test_initial_weights_are_uniform_within_the_bound_of_their_initializer
WEIGHED = test_class_weights.test_e_is_the_sum_of_weight_times_loss_over_b_and_its_gradient_that_of_weighed_local_gradients
SIGNALS = test_reference.test_signals_are_what_their_names_say
TANH = ("tanh", lambda v: 1 - np.tanh(v) ** 2, 0.05)
RELU = ("relu", lambda v: (v > 0) * 1.0, 0.05)
PERMUTED = test_draws.test_an_epochs_order_is_a_permutation_and_another_in_each_epoch_and_seed
FIRST_WORDS = test_draws.test_the_first_words_never_change
ON_PAPER = test_reference.test_losses_are_those_on_paper
PYTORCHS = test_reference.test_optimizers_take_the_steps_of_pytorchs
DROPPED = test_reference.test_a_hidden_output_is_dropped_after_its_activation_and_scaled_where_it_is_kept
COLUMNS = test_supervisor.test_each_column_of_the_history_is_the_number_of_its_name
ROWS_WEIGHED = test_class_weights.test_a_step_goes_down_the_slope_of_the_mean_of_weighted_losses_and_a_rows_scale_is_no_matter
SCALED = test_class_weights.test_given_weights_are_scaled_to_mean_one_over_the_rows_and_keep_their_ratios
THRESHOLD = test_draws.test_the_threshold_is_the_floor
LAMBDAS = test_weights.test_penalties_lie_on_weight_matrices_alone_one_number_a_layer

SHARED = [
    Shared("the last batch dropped", Supervisor, "__init__", "-(-self.rows // self.batch)", "self.rows // self.batch", DEALT),
    Shared("the order of epoch 0 repeated", Supervisor, "_orders", "seed, self.epoch,", "seed, 0,", DEALT),
    Shared("one order for all seeds", Supervisor, "_orders", "row_order(seed", "row_order(self.stack.seeds[0]", DEALT),
    Shared("noise of step 0 repeated", Supervisor, "_next_chunk", "steps.tolist()", "[0] * count", DEALT),
    Shared(
        "noise of the step in the epoch", Supervisor, "_next_chunk", "steps.tolist()", "(steps - self.step + at).tolist()", DEALT
    ),
    Shared("one epoch's order kept for the next", Supervisor, "_new_epoch", "self._order = None", "pass", DEALT),
    Shared("warm-up from 0", supervisor, "learning_rates", "(steps + 1)", "steps", SCHEDULES),
    Shared(
        "warm-up one step too long",
        supervisor,
        "learning_rates",
        "max(1, schedule.warmup), after",
        "(schedule.warmup + 1), after",
        SCHEDULES,
    ),
    Shared(
        "cosine over the warm-up too", supervisor, "learning_rates", "epoch_steps - schedule.warmup)", "epoch_steps)", SCHEDULES
    ),
    Shared(
        "cosine that ends one step early",
        supervisor,
        "learning_rates",
        "epoch_steps - schedule.warmup)",
        "epoch_steps - schedule.warmup - 1)",
        SCHEDULES,
    ),
    Shared(
        "steps counted without the short batch",
        supervisor,
        "learning_rates",
        "math.ceil(rows / trial.train.batch_size)",
        "rows // trial.train.batch_size",
        SCHEDULES,
    ),
    Shared("step schedule from the first step on", supervisor, "learning_rates", "(since //", "(steps //", SCHEDULES),
    Shared("trials that ended keep their rate", Supervisor, "_rates", "self.live()", "range(len(self.members))", ENDED),
    Shared("best weights of the last epoch", Supervisor, "_judge", "return better", "return True", BEST),
    Shared("ties go to the later epoch", Supervisor, "_judge", "value < best", "value <= best", BEST),
    Shared("the largest loss is the best", Supervisor, "_judge", "else value < best", "else value > best", BEST),
    Shared(
        "patience one too long",
        Supervisor,
        "_judge",
        "waited >= patience",
        "waited > patience",
        test_supervisor.test_it_stops_when_patience_runs_out_and_an_equal_epoch_is_no_better_one,
    ),
    Shared(
        "NaN becomes the best",
        Supervisor,
        "_judge",
        'np.isfinite(record["val_loss"])',
        "True",
        test_supervisor.test_a_validation_loss_that_is_no_number_is_never_the_best,
    ),
    Shared("a NaN loss goes on", Supervisor, "_count_steps", "if not sound.all()", "if False", NO_NUMBER, (np.nan,)),
    Shared(
        "an infinite loss goes on",
        Supervisor,
        "_count_steps",
        "np.isfinite([*numbers.values()])",
        "~np.isnan([*numbers.values()])",
        NO_NUMBER,
        (np.inf,),
    ),
    Shared(
        "an infinite penalty goes on",
        Supervisor,
        "report",
        "losses.loss + losses.penalty}",
        "losses.loss}",
        test_supervisor.test_a_penalty_that_is_no_number_ends_its_trial_too,
    ),
    Shared(
        "training loss as a mean over batches",
        Supervisor,
        "_end_epoch",
        "sizes / self.rows",
        "np.full(self.epoch_steps, 1 / self.epoch_steps)",
        COLUMNS,
    ),
    Shared(
        "the rate of the epoch's first step", Supervisor, "_record", "self.step - 1]", "self.step - self.epoch_steps]", COLUMNS
    ),
    Shared("the rate of the step to come", Supervisor, "_record", "self.step - 1]", "self.step]", COLUMNS),
    Shared("the neighbour's signals", Supervisor, "_record", "values[position]", "values[position - 1]", COLUMNS),
    Shared("λΩ within E", Supervisor, "_record", '"train_loss": error', '"train_loss": error + penalty', COLUMNS),
    Shared("sums of an epoch lost at a stop", Supervisor, "_load_arrays", "self.losses, self.penalties =", "_ =", resuming),
    Shared("best weights lost at a stop", Supervisor, "_take_up", 'saved.arrays.get(f"best.{number}")', "None", resuming),
    Shared("members forgotten at a stop", Supervisor, "_take_up", 'list(saved.numbers["members"])', "self.members", resuming),
    Shared("one seed for all orders", draws, "row_order", "raw_words(seed", "raw_words(1", PERMUTED),
    Shared("one order for all epochs", draws, "row_order", "ORDER, epoch", "ORDER, 0", PERMUTED),
    Shared(
        "an order with repetitions",
        draws,
        "row_order",
        'np.argsort(raw_words(seed, ORDER, epoch, rows), kind="stable")',
        "raw_words(seed, ORDER, epoch, rows) % rows",
        PERMUTED,
    ),
    Shared("noise without the seed", draws, "noise_keys", "mix(s ^", "mix(0 * s ^", FIRST_WORDS),
    Shared("noise without the step", draws, "noise_keys", "0x9E3779B9)) + t)", "0x9E3779B9)) + 0 * t)", FIRST_WORDS),
    Shared(
        "noise without the layer",
        draws,
        "noise_keys",
        "p = np.arange(places",
        "p = 0 * np.arange(places",
        UNCORRELATED,
        ("layers",),
    ),
    Shared(
        "noise without the row",
        draws,
        "noise",
        "places.astype(np.uint32)[:, None] * np.uint32(units)",
        "0 * places.astype(np.uint32)[:, None]",
        UNCORRELATED,
        ("rows",),
    ),
    Shared(
        "a hash without its last mixing", draws, "noise", "mix(mix(at ^ first) + second)", "mix(at ^ first) + second", FIRST_WORDS
    ),
    Shared("a threshold that is rounded", draws, "threshold", "math.floor", "round", THRESHOLD),
    Shared("p for 1 - p", draws, "threshold", "p * 2**24", "(1 - p) * 2**24", THRESHOLD),
    Shared(
        "biases drawn at random",
        draws,
        "initial_weights",
        "name: np.zeros(shape) for",
        "name: np.full(shape, b) for",
        UNIFORM,
        ("relu", "auto", 6 / 200),
    ),
    Shared("weights between 0 and b", draws, "initial_weights", "(2 * unit - 1)", "unit", UNIFORM, ("relu", "auto", 6 / 200)),
    Shared(
        "one draw for all layers",
        draws,
        "initial_weights",
        "WEIGHTS, layer",
        "WEIGHTS, 0",
        test_draws.test_layers_and_seeds_start_from_different_weights,
    ),
    Shared(
        "the output layer by the hidden one's rule",
        draws,
        "bound",
        "layer == len(trial.layers) - 1",
        "False",
        test_draws.test_the_output_layer_starts_by_glorot_whatever_the_activation,
    ),
    Shared("He's bound with 3", draws, "bound", "6 / i", "3 / i", UNIFORM, ("tanh", "he_uniform", 6 / 200)),
    Shared("leaky He without its slope", draws, "bound", "(1 + a * a)", "1", UNIFORM, ("leaky_relu", "auto", 6 / 208)),
    Shared("biases penalised", weights, "penalties", "if slot.penalised", "if True", LAMBDAS),
    Shared("squared errors summed over targets", losses, "row_losses", "xp.mean((d", "xp.sum((d", by_differences),
    Shared(
        "a binary loss without its shift",
        losses,
        "row_losses",
        "softplus(xp, logits)",
        "xp.log(1.0 + xp.exp(logits))",
        ON_PAPER,
        ("binary",),
    ),
    Shared(
        "a softmax over other classes",
        losses,
        "row_losses",
        "xp.logsumexp(logits, -1)",
        "xp.logsumexp(logits[..., 1:], -1)",
        ON_PAPER,
        ("multiclass",),
    ),
    Shared(
        "half the squared error",
        losses,
        "row_losses",
        "(d - logits) * (d - logits)",
        "0.5 * (d - logits) * (d - logits)",
        ON_PAPER,
        ("regression",),
    ),
    Shared("class weights that are not scaled", losses, "class_weights", "w * n / total", "w", SCALED),
    Shared(
        "class weights of mean one over the classes",
        losses,
        "class_weights",
        "w * n / total",
        "w * len(counts) / sum(given)",
        SCALED,
    ),
    Shared(
        "balanced without the number of classes",
        losses,
        "class_weights",
        "(len(counts) * count)",
        "count",
        test_class_weights.test_balanced_weights_make_each_class_weigh_the_same_and_have_mean_one_over_the_rows,
    ),
    Shared(
        "the weight of the other class",
        losses,
        "row_weights",
        "w[:, 1:] + (1 - d[..., 0]) * w[:, :1]",
        "w[:, :1] + (1 - d[..., 0]) * w[:, 1:]",
        WEIGHED,
        ("binary",),
    ),
    Shared(
        "the weight of the next class",
        losses,
        "row_weights",
        "d * w[:, None, :]",
        "d * np.roll(w, 1, 1)[:, None, :]",
        WEIGHED,
        ("multiclass",),
    ),
    Shared(
        "weights of rows on their own scale", base.Stack, "targets", "self.data.rows / w.sum", "w.sum", ROWS_WEIGHED, ("binary",)
    ),
    Shared("weights of rows instead of classes", losses, "weighed", "own * of_class", "own", ROWS_WEIGHED, ("multiclass",)),
    Shared(
        "weights in the validation loss",
        Supervisor,
        "_end_epoch",
        "self._own_y_valid(position))",
        "self._own_y_valid(position)) * np.mean(trial.class_weights or 1)",
        test_class_weights.test_weights_are_in_the_training_loss_and_not_in_the_validation_loss,
    ),
    Shared(
        "a softplus that overflows",
        activations,
        "softplus",
        "xp.exp(xp.where(v > 0, -v, v))",
        "xp.exp(v) * xp.exp(-xp.where(v > 0, v, 0.0))",
        test_activations.test_large_arguments_overflow_nowhere,
        ("softplus",),
    ),
]

# Of folds: the reference, as a stack, against itself on the rows of one fold.
FOLDS = [
    Shared("the offset of a fold forgotten", Supervisor, "_orders", "start + draws", "draws", in_folds),
    Shared("folds of one order", draws, "streams", "(trial.seed, trial.fold)", "(trial.seed, trials[0].fold)", in_folds),
    Shared("the offset by all rows", Supervisor, "_orders", "* self.rows", "* len(self.data.X)", in_folds),
    Shared(
        "an order that one fold of a seed keeps from another",
        Supervisor,
        "_orders",
        "row_order(seed, self.epoch",
        "row_order(seed + start, self.epoch",
        in_folds,
    ),
    Shared(
        "noise of the stream, not of its seed",
        Supervisor,
        "_next_chunk",
        "self.stack.seeds, steps",
        "range(len(self.stack.seeds)), steps",
        in_folds,
    ),
    Shared("the first fold's validation targets", Supervisor, "_own_y_valid", "self.stack.region[position]", "0", in_folds),
    Shared("another fold's validation targets", Supervisor, "_own_y_valid", "region[position]", "region[0]", in_folds),
    Shared("the first fold's rows validated", ReferenceStack, "_valid_rows", "self.region[k]", "0", in_folds),
    Shared("the first fold's rows probed", ReferenceStack, "_signals", "self.region[k]", "0", in_folds),
    Shared("folds in another order", base, "regions", "data.folds.index", "data.folds[::-1].index", in_folds),
    Shared(
        "one fold's metric for all",
        Supervisor,
        "_record",
        "self.metrics[trial.fold]",
        "self.metrics[self.data.folds[0]]",
        test_folds.test_each_fold_has_the_metrics_of_its_own_validation_rows,
    ),
]

ORACLE = [
    Shared("class weights left out of the gradient", Dense, "backward", "w[:, None] * delta", "delta", WEIGHED, ("binary",)),
    Shared("class weights in the gradient alone", ReferenceStack, "_gradient", "w * each", "each", WEIGHED, ("binary",)),
    Shared(
        "divided by the sum of the weights",
        ReferenceStack,
        "_gradient",
        "loss = each.mean(dtype=np.float64)",
        "loss = each.sum() / (len(each) if w is None else w.sum())",
        WEIGHED,
        ("binary",),
    ),
    Shared(
        "class weights in δ",
        delta,
        "local_gradients",
        "output_delta(trial, done.fields[-1], d)",
        "output_delta(trial, done.fields[-1], d) * (1 if w is None else w[:, None])",
        WEIGHED,
        ("multiclass",),
    ),
    Shared("L1 without its sign", ReferenceStack, "_gradient", "np.sign(flat)", "1.0", by_hand),
    Shared("λ2 without the 2", ReferenceStack, "_gradient", "2 * self.l2[k] * flat", "self.l2[k] * flat", by_hand),
    Shared("half of L2 reported", ReferenceStack, "_gradient", "flat * flat)", "0.5 * flat * flat)", by_hand),
    Shared("sum over rows", Dense, "backward", "/ len(y)", "", by_differences),
    Shared("biases' sum over rows", Dense, "backward", "weighed.mean", "weighed.sum", by_differences),
    Shared("δ summed over targets", delta, "output_delta", " / v.shape[-1]", "", by_differences),
    Shared(
        "φ' of the wrong layer",
        delta,
        "local_gradients",
        "done.fields[number - 1], a",
        "0 * done.fields[number - 1], a",
        by_differences,
    ),
    Shared(
        "the mask forgotten on the way back",
        delta,
        "local_gradients",
        "error if mask is None else error * mask",
        "error",
        by_differences,
    ),
    Shared("clipping upwards", ReferenceStack, "_clipped", "s > self", "s < self", by_hand, (100.0,)),
    Shared("clipping by the square", ReferenceStack, "_clipped", "np.sqrt((h * h).sum())", "(h * h).sum()", by_hand),
    Shared("dropped where it should be kept", delta, "dropout_mask", ") < draws", ") >= draws", DROPPED),
    Shared("scaled by 1/p", delta, "dropout_mask", "1 / (1 - p)", "1 / p", DROPPED),
    Shared(
        "ε before bias correction",
        optimizers,
        "adam",
        'v / n["correction2"]',
        "(xp.sqrt(v) + o.epsilon) ** 2 / n['correction2']",
        PYTORCHS,
        ("adam",),
    ),
    Shared("decay without η", optimizers, "adamw", "- eta * n[", "- n[", PYTORCHS, ("adamw",)),
    Shared(
        "Nesterov without the gradient", optimizers, "sgd", 'g + n["momentum"] * v', "n['momentum'] * v", PYTORCHS, ("nesterov",)
    ),
    Shared(
        "rmsprop's ε inside the root",
        optimizers,
        "rmsprop",
        "xp.sqrt(s) + o.epsilon",
        "xp.sqrt(s + o.epsilon)",
        PYTORCHS,
        ("rmsprop",),
    ),
    Shared("all rows probed", ReferenceStack, "_signals", "min(self.data.rows, PROBE_ROWS)", "self.data.rows", SIGNALS, TANH),
    Shared(
        "mean |δ|",
        ReferenceStack,
        "_signals",
        "np.sqrt(np.mean(np.square(d, dtype=np.float64)))",
        "np.mean(np.abs(d))",
        SIGNALS,
        TANH,
    ),
    Shared("dead where any row is", ReferenceStack, "_signals", ".all(axis=0)", ".any(axis=0)", SIGNALS, RELU),
    Shared("saturated above the limit", ReferenceStack, "_signals", "(s < 0.05", "(s > 0.05", SIGNALS, TANH),
]


def plant(monkeypatch, owner, name, old, new):
    """Put the function of that name, with its source changed, in its place until the test is over."""
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert old in source, f"{old!r} does not stand in {name}"
    made: dict[str, Any] = {}
    exec("from __future__ import annotations\n" + source.replace(old, new), vars(inspect.getmodule(function)) | {}, made)
    monkeypatch.setattr(owner, name, made[name])
    for key in [key for key, rule in optimizers.RULES.items() if rule.step is function]:  # a table that holds the function
        monkeypatch.setitem(optimizers.RULES, key, optimizers.RULES[key]._replace(step=made[name]))


@pytest.mark.parametrize("fault", [*SHARED, *FOLDS, *ORACLE], ids=lambda fault: f"{fault.name}: {fault.what}")
def test_a_fault_that_no_other_backend_can_see_is_seen_by_a_test_of_its_own(fault, monkeypatch, tmp_path):
    arguments = (tmp_path,) if fault.seen_by is resuming else fault.arguments
    fault.seen_by(*arguments)
    plant(monkeypatch, fault.owner, fault.name, fault.old, fault.new)
    with pytest.raises((AssertionError, FloatingPointError, RuntimeWarning, ValueError, IndexError)):
        fault.seen_by(*arguments)


def test_the_number_of_faults_that_are_planted_never_falls():
    """Each stands beside the test that sees it; who finds another adds it, and raises the number."""
    faults = [*SHARED, *FOLDS, *ORACLE, *test_conformance_teeth.FAULTS]
    assert len({(fault.old, fault.new, getattr(fault, "name", "")) for fault in faults}) >= 211
