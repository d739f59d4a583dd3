"""The conformance suite has teeth: each of many planted faults is seen by a check.

They are planted into a copy of the plug-in's source (tests/plugin), one at a time; without one it passes all checks, in
test_plugin.py. What no comparison of backends can see, because all share it, is in test_shared_faults.py.
"""

import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from backends.conformance import TASKS, Conformance
from backends.conformance.cases import ALL_LEVELS, STRUCTURES, TARGETS

PLUGIN = Path(__file__).parent / "plugin/deltarule_torch.py"
SUITE = Conformance()


def steps(subject, tmp_path):
    for number in range(len(STRUCTURES)):
        SUITE.test_each_step_from_the_references_state_is_the_references_step(subject, number)


def free(subject, tmp_path):
    for number in range(len(STRUCTURES)):
        SUITE.test_free_running_in_float64_it_follows_the_reference(subject, number)


def gradients(subject, tmp_path):
    for target in TARGETS:
        for noisy in (False, True):
            SUITE.test_gradients_and_local_gradients_are_the_delta_rule(subject, target, noisy)


def logits(subject, tmp_path):
    for task in TASKS[1:]:
        SUITE.test_cross_entropies_come_from_logits(subject, task, "float64", 1e-12)


def resume(subject, tmp_path):
    SUITE.test_stopped_at_any_step_it_resumes_to_the_same_bits(subject, "float64", tmp_path)


def neighbours(subject, tmp_path):
    for optimizer in ("sgd", "adamw"):
        SUITE.test_a_trial_that_ended_stays_as_it_is_and_spoils_no_other(subject, optimizer)


def initial(subject, tmp_path):
    SUITE.test_initial_weights_are_the_draws(subject, "float64")


def sizes(subject, tmp_path):
    SUITE.test_a_large_network_takes_the_references_steps(subject, "adam")


def overflowing(subject, tmp_path):
    SUITE.test_a_gradient_whose_norm_over_or_underflows_is_clipped_to_its_length(subject, 1e150)
    SUITE.test_a_gradient_whose_norm_over_or_underflows_is_clipped_to_its_length(subject, 1e-170)


def standing(subject, tmp_path):
    SUITE.test_a_gradient_whose_square_overflows_ends_its_trial(subject)


def zero(subject, tmp_path):
    SUITE.test_at_a_local_field_of_zero_the_left_branch_holds(subject)


def large(subject, tmp_path):
    SUITE.test_large_local_fields_overflow_nowhere(subject, 10.0)
    SUITE.test_large_local_fields_overflow_nowhere(subject, 1e4)


def large_in_float32(subject, tmp_path):
    SUITE.test_large_local_fields_overflow_nowhere_in_float32(subject)


def linear(subject, tmp_path):
    for task in TASKS:
        SUITE.test_a_network_without_hidden_layers_takes_the_references_steps(subject, task)


def single(subject, tmp_path):
    for number in ALL_LEVELS:
        SUITE.test_free_running_in_float32_outputs_and_objective_follow_the_reference(subject, number)


def results(subject, tmp_path):
    SUITE.test_results_and_signals_are_the_references(subject)


def at_once(subject, tmp_path):
    for task in TASKS:
        SUITE.test_a_trial_that_diverges_at_once_has_neither_weights_nor_a_best_epoch(subject, task)


def rebuilt(subject, tmp_path):
    SUITE.test_it_resumes_to_the_same_bits_after_trials_ended_and_the_stack_was_rebuilt(subject, tmp_path)


def elsewhere(subject, tmp_path):
    for task in TASKS:
        SUITE.test_its_weights_predict_the_same_on_the_reference(subject, task, tmp_path)


def inputs(subject, tmp_path):
    SUITE.test_the_dropped_inputs_are_those_of_the_hash(subject)


def hidden(subject, tmp_path):
    SUITE.test_the_dropped_units_are_those_of_the_hash(subject, 1)
    SUITE.test_the_dropped_units_are_those_of_the_hash(subject, 2)


def signals(subject, tmp_path):
    SUITE.test_signals_are_the_references_with_dead_and_saturated_units_and_rows_beyond_the_first_1024(subject)


def predicting(subject, tmp_path):
    SUITE.test_any_number_of_rows_is_predicted_and_the_validation_rows_without_any(subject)


def given(subject, tmp_path):
    SUITE.test_what_a_stack_gave_out_and_took_in_is_no_longer_its_own(subject)


def looking(subject, tmp_path):
    SUITE.test_looking_changes_nothing(subject)


def keeping(subject, tmp_path):
    SUITE.test_trials_that_are_kept_go_on_in_the_order_that_was_asked_for(subject)


def fates(subject, tmp_path):
    SUITE.test_trials_that_stop_diverge_and_are_pruned_at_different_times_equal_their_solo_runs(subject, "multiclass", "float64")
    SUITE.test_trials_that_stop_diverge_and_are_pruned_at_different_times_equal_their_solo_runs(subject, "regression", "float64")


def folds(subject, tmp_path):
    SUITE.test_trials_of_several_folds_equal_their_solo_runs_on_the_rows_of_their_fold(subject, "multiclass", "float64")


def validated(subject, tmp_path):
    SUITE.test_each_trial_is_probed_and_validated_on_the_rows_of_its_own_fold(subject)


def taken_up(subject, tmp_path):
    SUITE.test_folds_resume_to_the_same_bits(subject, tmp_path)


def refused(subject, tmp_path):
    SUITE.test_a_fold_that_the_data_do_not_have_is_refused(subject)


class Fault(NamedTuple):
    """`old` in the source becomes `new`, and `seen_by` fails."""

    what: str
    old: str
    new: str
    seen_by: Callable[..., None] = steps


# Places in the plug-in's source.
V_HAT = "((v / (1 - o.beta2**t)).sqrt() + o.epsilon)"
NEW_V = 'v = s.numbers["momentum"] = s.free["momentum"] * s.numbers["momentum"] + g'
ADAM = "    adam(s, g, eta, t)\n"
RATES = "self._put(chunk.rates[:, s])[:, None]"
ROWS = "chunk.rows[self.seed_index, s]"
SEEN = "seen.append((loss.double(), penalty.double(), g.abs().amax(1)))"
MEAN = "losses = self._weighed(self._losses(fields, d), d).mean(1)"
WEIGHTS = "self._put(self.class_weights)"
OF_ROWS = "row_weights(torch, self.trials[0].task, d, self.w)"
LAMBDAS = "self._put(self.l1), self._put(self.l2),"
PENALTY = "penalty = (self.lambda1 * W.abs() + self.lambda2 * W * W).sum(1)"
ADDED = "g = g + self.lambda1 * torch.sign(W) + 2 * self.lambda2 * W"
NORM = "norm = (h * h).sum(1, keepdim=True).sqrt()"
LOSS = "row_losses(torch, self.trials[0].task, fields[-1], d)"
KEYS = "keys[self.seed_index, place]"
MASK = f"self._mask({KEYS}, place, y)"
HASHED = "noise(torch.tensor(keys.astype(np.int64)), y.shape[-2], y.shape[-1])"
FORMULA = "getattr(ACTIVATIONS[name], what)(torch, v[i:j], self.a[i:j])"
FIELDS = "return fields\n"
OF_VALID = "self._own(self.X_valid) if X is None"
PROBED = "self._own(self.X)[:, :PROBE_ROWS]"
PROBED_D = "self._own(self.d)[:, :PROBE_ROWS]"
WITHOUT = "None)"
SOME_NOISE = "np.ones((len(self.seeds), 9, 2), np.uint32))"


def instead(activation, formula):
    """Another φ for one activation; `x` is v."""
    return f"((lambda x: {formula})(v[i:j]) if (name, what) == ({activation!r}, 'value') else {FORMULA})"


OPTIMIZER_FAULTS = [
    Fault("ε before bias correction", V_HAT, "((v.sqrt() + o.epsilon) / (1 - o.beta2**t) ** 0.5)"),
    Fault("Adam's ε ignored", V_HAT, V_HAT.replace("o.epsilon", "1e-8")),
    Fault("rmsprop's ε ignored", "square.sqrt() + o.epsilon", "square.sqrt() + 1e-8"),
    Fault("large networks' ε ignored", V_HAT, V_HAT.replace("o.eps", "1e-8 if s.flat.shape[1] > 4096 else o.eps"), sizes),
    Fault("ε inside the root", V_HAT, "(v / (1 - o.beta2**t) + o.epsilon**2).sqrt()"),
    Fault("no correction of m", "(m / (1 - o.beta1**t))", "m"),
    Fault("t from 0 in every chunk", "chunk.step + s + 1", "s + 1"),
    Fault("t one too large", "chunk.step + s + 1", "chunk.step + s + 2"),
    Fault("t counted by the stack", "chunk.step + s + 1", "vars(self).update(c=vars(self).get('c', 0) + 1) or self.c", resume),
    Fault("Adam's v from |g|", "(1 - o.beta2) * g * g", "(1 - o.beta2) * g.abs()"),
    Fault("β1 of the default", "o.beta1 * s.numbers", "0.9 * s.numbers"),
    Fault("decoupled decay as L2", ADAM, "    adam(s, g + s.free['weight_decay'] * s.flat, eta, t)\n    decay = 0\n"),
    Fault("decay without η", "decay = eta * s.free", "decay = 0.01 * s.free"),
    Fault("decay of the weights after the step", ADAM, f"{ADAM}    decay = eta * s.free['weight_decay'] * s.flat\n"),
    Fault("Nesterov with the old v", NEW_V, f"u = s.numbers['momentum']; {NEW_V}; v = u if s.optimizer.nesterov else v"),
    Fault("no Nesterov", "if s.optimizer.nesterov", "if False"),
    Fault("momentum that damps", NEW_V, NEW_V.replace("+ g", "+ (1 - s.free['momentum']) * g")),
    Fault("one μ for all trials", NEW_V, NEW_V.replace('s.free["momentum"] *', 's.free["momentum"][:1] *')),
    Fault("momentum shared across trials", NEW_V, NEW_V.replace('"] + g', '"].mean(0) + g')),
    Fault("rmsprop's ε inside the root", "square.sqrt() + o.epsilon", "(square + o.epsilon).sqrt()"),
    Fault("ρ of the default", "o.rho * s.numbers", "0.99 * s.numbers"),
    Fault("one learning rate for all trials", RATES, RATES.replace("[:, s]", "[:1, s]")),
    Fault("the rate of a chunk's first step for all", RATES, RATES.replace("[:, s]", "[:, 0]"), free),
    Fault("trials that ended train on", RATES, RATES.replace("s])", "s]).clamp_min(1e-3)"), neighbours),
]

PENALTY_FAULTS = [
    Fault("λ2 without the 2", "2 * self.lambda2 * W", "self.lambda2 * W"),
    Fault("biases penalised", LAMBDAS, "self._put(self.l1.clip(self.l1.max(1)[:, None])), self._put(self.l2),"),
    Fault("one λ for all layers", LAMBDAS, "self._put(np.where(self.l1, self.l1.max(1)[:, None], 0)), self._put(self.l2),"),
    Fault("sign(0) = 1", "torch.sign(W)", "torch.where(W >= 0, 1.0, -1.0)", zero),
    Fault("λΩ left out of a short batch", ADDED, f"if x.shape[1] != 6: {ADDED}"),
    Fault("λΩ of a short batch by its share", PENALTY, f"{PENALTY} * (6 / 16 if x.shape[1] == 6 else 1)"),
    Fault("λΩ within the E that is reported", "return losses.detach(), penalty", "return losses.detach() + penalty, penalty"),
    Fault("λΩ within the E of an epoch", SEEN, SEEN.replace("loss.double()", "(loss + penalty).double()"), results),
    Fault("a divergence that is hidden", SEEN, SEEN.replace("double()", "double().nan_to_num(0, 0, 0)"), at_once),
    Fault("half of L2 reported", "self.lambda2 * W * W)", "0.5 * self.lambda2 * W * W)"),
    Fault(
        "λΩ after the update", SEEN, f"penalty = (self.lambda1 * self.flat.abs() + self.lambda2 * self.flat**2).sum(1); {SEEN}"
    ),
    Fault("clipping before the penalty is added", ADDED, f"{ADDED.replace('g + ', 'self._clipped(g) + ')}; self.limit = None"),
    Fault(
        "clipping by a norm that may overflow",
        "h, limit = g / scale, self.limit / scale",
        "h, limit = g, self.limit",
        overflowing,
    ),
    Fault("a gradient that nobody watches", "penalty.double(), g.abs().amax(1)", "penalty.double(), 0 * eta[:, 0]", standing),
    Fault("clipping over the whole stack", NORM, "norm = (h * h).sum().sqrt().view(1, 1)"),
    Fault(
        "clipping of the weights alone", NORM, "norm = (h * h * (self._put(self.l1 + self.l2) > 0)).sum(1, keepdim=True).sqrt()"
    ),
    Fault(
        "clipping number by number",
        "return torch.where(norm",
        "return g.clamp(-self.limit, self.limit) + 0 * torch.where(norm",
    ),
    Fault(
        "one clipping norm for all trials",
        "norm > limit, h * (self.limit / norm)",
        "norm > limit[:1], h * (self.limit[:1] / norm)",
    ),
    Fault("a NaN that spreads over the stack", NORM, f"{NORM}; norm = norm + 0 * norm.sum()", neighbours),
]

LOSS_FAULTS = [
    Fault("sum over rows for their mean", MEAN, MEAN.replace("mean", "sum")),
    Fault("mean over trials", "torch.autograd.grad(losses.sum()", "torch.autograd.grad(losses.mean()"),
    Fault("a short batch divided by a whole one's size", MEAN, f"{MEAN} * (6 / 16 if x.shape[1] == 6 else 1)"),
    Fault("squared errors summed over targets", LOSS, f"{LOSS} * (d.shape[-1] if self.trials[0].task == 'regression' else 1)"),
    Fault("half the squared error", LOSS, f"{LOSS} / (2 if self.trials[0].task == 'regression' else 1)", gradients),
    Fault(
        "softmax without its shift",
        LOSS,
        f"fields[-1].exp().sum(-1).log() - (d * fields[-1]).sum(-1) if self.trials[0].task == 'multiclass' else {LOSS}",
        logits,
    ),
    Fault(
        "the logarithm of a probability",
        LOSS,
        f"-(torch.where(d > 0, 1, -1) * fields[-1]).sigmoid().log().sum(-1) if self.trials[0].task == 'binary' else {LOSS}",
        logits,
    ),
    Fault("the loss after the update", SEEN, f"loss = self._gradient(self.flat, x, d, chunk.noise[:, s])[0]; {SEEN}"),
    Fault("a loss that feels the width of the stack", MEAN, f"{MEAN} * (1 + 1e-9 * len(flat))", fates),
]

WEIGHT_FAULTS = [
    Fault("class weights left out", MEAN, "losses = self._losses(fields, d).mean(1)"),
    Fault(
        "divided by the sum of a batch's weights",
        MEAN,
        "a = self._losses(fields, d); losses = self._weighed(a, d).sum(1) / self._weighed(a * 0 + 1, d).sum(1)",
    ),
    Fault("the weight of another class", OF_ROWS, OF_ROWS.replace("self.w)", "self.w.roll(1, 1))")),
    Fault("one trial's class weights for all", OF_ROWS, OF_ROWS.replace("self.w)", "self.w[-1:].expand_as(self.w))")),
    Fault("class weights scaled once more", WEIGHTS, "self._put(self.class_weights / self.class_weights.mean(1)[:, None])"),
    Fault("class weights in the loss alone", "autograd.grad(losses.sum()", "autograd.grad(self._losses(fields, d).mean(1).sum()"),
    Fault("class weights in the gradient alone", "return losses.detach()", "return self._losses(fields, d).mean(1).detach()"),
    Fault(
        "class weights in δ",
        "self._losses(fields, d).sum(), fields",
        "self._weighed(self._losses(fields, d), d).sum(), fields",
        gradients,
    ),
    Fault(
        "class weights in the δ that is probed",
        "deltas = self._deltas(fields, d)",
        "deltas = [e * self._weighed(0 * e[..., 0] + 1, d)[..., None] for e in self._deltas(fields, d)]",
        signals,
    ),
    Fault(
        "class weights of the trials that left",
        WEIGHTS,
        "vars(self).setdefault('first', self._put(self.class_weights))[: len(self.trials)]",
        keeping,
    ),
    Fault("class weights that neighbours feel", OF_ROWS, f"{OF_ROWS} * self.w.mean()", fates),
    Fault("weights of rows left out", "losses = losses * own", "losses = losses + 0 * own"),
    Fault(
        "divided by the sum of a batch's own weights",
        "losses = losses * own",
        "losses = losses * own / own.mean(-1, keepdim=True)",
    ),
]

ROW_FAULTS = [
    Fault(
        "the last batch dropped",
        "            x, d = self.X[rows], self.d[rows]\n",
        "            x, d = self.X[rows], self.d[rows]\n"
        "            if rows.shape[1] == 6: seen.append((torch.zeros(len(rows)).double(),) * 3); continue\n",
    ),
    Fault(
        "the order of epoch 0 repeated",
        ROWS,
        "vars(self).setdefault(str(chunk.rows.shape), chunk.rows)[self.seed_index, s]",
        free,
    ),
    Fault("the first seed's rows for all trials", ROWS, "chunk.rows[[0] * len(self.trials), s]"),
    Fault("rows by trial, not by seed", ROWS, "chunk.rows[np.arange(len(self.trials)) % len(chunk.rows), s]"),
    Fault("validation rows taken from training rows", OF_VALID, "self._own(self.X) if X is None", predicting),
]

FOLD_FAULTS = [
    Fault("the first fold's rows validated", OF_VALID, "self.X_valid[: self.data.rows_valid] if X is None", validated),
    Fault("the rows of all folds validated", OF_VALID, "self.X_valid if X is None", validated),
    Fault("another fold's rows validated", OF_VALID, "self._own(self.X_valid).roll(1, 0) if X is None", folds),
    Fault("the first fold's rows probed", PROBED, "self.X[: self.data.rows][:PROBE_ROWS]", validated),
    Fault("the first fold's targets probed", PROBED_D, "self.d[: self.data.rows][:PROBE_ROWS]", folds),
    Fault(
        "the folds of the trials that left",
        "[self.region]",
        "[vars(self).setdefault('first', self.region)[: len(self.flat)]]",
        validated,
    ),
    Fault("all trained on the first fold", ROWS, f"{ROWS} % self.data.rows", folds),
    Fault(
        "a refusal in Python's own words",
        "super().__init__(trials, data, machine)",
        "data and [data.folds.index(trial.fold) for trial in trials]; super().__init__(trials, data, machine)",
        refused,
    ),
    Fault("folds whose trials share a step's mask", KEYS, "keys[0 * self.seed_index, place]", folds),
    Fault("slots lost where folds are taken up again", "self.numbers |= {", "_ = {", taken_up),
]

DROPOUT_FAULTS = [
    Fault("p for 1 - p", "(hashed >> 8) >= ", "(hashed >> 8) < "),
    Fault("kept outputs not scaled", "return kept * self._put(self.scales[place])[:, None, None]", "return kept.to(y.dtype)"),
    Fault("scaled by 1/p", "self._put(self.scales[place])", "self._put(1 / (1 - 1 / self.scales[place].clip(1.01)))"),
    Fault("a p that is a little off", "(hashed >> 8) >= ", "(hashed >> 8) + 2**18 >= "),
    Fault(
        "the mask before the activation",
        f"y = y * {MASK}",
        f"y = y * {MASK} if not place else self._each('value', fields[-1] * {MASK})",
    ),
    Fault("the keys of the place before", KEYS, "keys[self.seed_index, max(0, place - 1)]", hidden),
    Fault("p of another place", "torch.tensor(self.thresholds[place])", "torch.tensor(self.thresholds[place - 1])"),
    Fault("input dropout forgotten", "if keys is not None and", "if place and keys is not None and", inputs),
    Fault(
        "input dropout forgotten where no layer is hidden",
        "if keys is not None and",
        "if self.layers[1:] and keys is not None and",
        linear,
    ),
    Fault("one mask for all rows", HASHED, HASHED.replace("y.shape[-2]", "1")),
    Fault("noise of a chunk's first step repeated", "chunk.noise[:, s]", "chunk.noise[:, 0]", free),
    Fault("noise keyed by the trial, not its seed", KEYS, "keys[np.arange(len(self.trials)) % len(keys), place]"),
    Fault("noise that begins one row later", "mix(at ^", "mix((at + units) ^", hidden),
    Fault("a hash of one round", "mix((mix(at ^ keys[:, 0, None, None])", "mix(((at ^ keys[:, 0, None, None])", hidden),
    Fault("dropout while predicting", f"self._put(X), {WITHOUT}", f"self._put(X), {SOME_NOISE}", predicting),
    Fault("dropout while probing", f"(self.flat, x, d, {WITHOUT}", f"(self.flat, x, d, {SOME_NOISE}", signals),
]

ACTIVATION_FAULTS = [
    Fault("leaky slope 0.2", FORMULA, instead("leaky_relu", "torch.where(x > 0, x, 0.2 * x)")),
    Fault("leaky slope of the default", FORMULA, instead("leaky_relu", "torch.where(x > 0, x, 0.01 * x)")),
    Fault("relu with slope 1 at 0", FORMULA, instead("relu", "torch.where(x < 0, 0.0, x)"), zero),
    Fault("relu with slope ½ at 0", FORMULA, instead("relu", "torch.maximum(x, 0 * x)"), zero),
    Fault(
        "selu with the right slope at 0",
        FORMULA,
        instead("selu", "1.0507009873554805 * torch.where(x >= 0, x, 1.6732632423543772 * torch.expm1(x))"),
        zero,
    ),
    Fault("gelu by tanh", FORMULA, instead("gelu", "torch.nn.functional.gelu(x, approximate='tanh')")),
    Fault("softplus linear beyond 20", FORMULA, instead("softplus", "torch.nn.functional.softplus(x)"), large),
    Fault("elu whose other branch overflows", FORMULA, instead("elu", "torch.where(x > 0, x, torch.exp(x) - 1)"), large),
    Fault(
        "selu whose other branch overflows",
        FORMULA,
        instead("selu", "1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * torch.expm1(x))"),
        large_in_float32,
    ),
    Fault(
        "activations in half precision",
        FORMULA,
        f"({FORMULA}.bfloat16().to(v) if v.dtype == torch.float32 else {FORMULA})",
        single,
    ),
    Fault("the first trial's activation for all", "ACTIVATIONS[name], what", "ACTIVATIONS[self.groups[0][0]], what"),
    Fault("the outputs activated while predicting", "None)[-1].numpy()", "None)[-1].tanh().numpy()", elsewhere),
    Fault("the outputs activated too", FIELDS, "return [*fields[:-1], torch.tanh(fields[-1])]\n", gradients),
]

STATE_FAULTS = [
    Fault("initial weights in float32", "weights.initial(trials)", "weights.initial(trials).astype(np.float32)", initial),
    Fault("all in float32", "torch.tensor(np.asarray(array, dtype=self.dtype))", "torch.tensor(array).float()", gradients),
    Fault("a slot left out of the state", "in self.numbers.items()}}", "in self.numbers.items() if name != 'v'}}", resume),
    Fault("slots not taken up", "self.numbers |= {", "_ = {"),
    Fault(
        "a state in memory that the next one uses",
        "return self.flat.numpy().copy()",
        "memory = vars(self).setdefault('memory', self.flat.numpy().copy()); memory[:] = self.flat; return memory",
        given,
    ),
    Fault("a state taken up without a copy", 'self._put(state["weights"])', 'torch.from_numpy(state["weights"])', given),
    Fault(
        "λ of the trials that left",
        LAMBDAS,
        "*(l[: len(self.trials)] for l in vars(self).setdefault('first', (self._put(self.l1), self._put(self.l2)))),",
        keeping,
    ),
    Fault(
        "λ of the trials that left, until it is taken up again",
        LAMBDAS,
        "*(l[: len(self.trials)] for l in vars(self).setdefault('first', (self._put(self.l1), self._put(self.l2)))),",
        rebuilt,
    ),
    Fault("looking moves the weights", f"x, d = {PROBED}", f"self.flat = self.flat + 1e-9; x, d = {PROBED}", looking),
]

SIGNAL_FAULTS = [
    Fault("all rows probed", "PROBE_ROWS = 1024", "PROBE_ROWS = 9999", signals),
    Fault(
        "δ of the mean, not of a row",
        "self._losses(fields, d).sum(), fields",
        "self._losses(fields, d).mean(1).sum(), fields",
        gradients,
    ),
    Fault("δ with the other sign", "[-error for error", "[error for error", gradients),
    Fault(
        "mean |δ| for its root mean square",
        "delta.double().square().mean((1, 2)).sqrt()",
        "delta.double().abs().mean((1, 2))",
        signals,
    ),
    Fault("saturated by an absolute limit", "0.05 * steepest", "0.05", signals),
    Fault("dead where any row is", "(slope == 0).all(1)", "(slope == 0).any(1)", signals),
    Fault("dead where nearly so", "(slope == 0)", "(slope < 0.05)", signals),
]

FAULTS = [
    *OPTIMIZER_FAULTS, *PENALTY_FAULTS, *LOSS_FAULTS, *WEIGHT_FAULTS, *ROW_FAULTS, *FOLD_FAULTS, *DROPOUT_FAULTS,
    *ACTIVATION_FAULTS, *STATE_FAULTS, *SIGNAL_FAULTS,
]  # fmt: skip


def plugin(source):
    """The backend of a source text; nothing is installed."""
    pytest.importorskip("torch")
    module = types.ModuleType("copy_of_the_plugin")
    exec(compile(source, str(PLUGIN), "exec"), module.__dict__)
    return module.Torch()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_planted_fault_is_seen(fault, tmp_path):
    source = PLUGIN.read_text()
    assert source.count(fault.old) == 1, f"{fault.old!r} must stand once in {PLUGIN.name}, found {source.count(fault.old)}"
    faulty = plugin(source.replace(fault.old, fault.new))
    with pytest.raises(AssertionError):
        fault.seen_by(faulty, tmp_path)


def test_every_check_of_the_suite_sees_a_fault():
    """But the one that starts processes: a fault that is not installed cannot be planted into them."""
    checks = {name for name in dir(Conformance) if name.startswith("test_")} - {"test_two_fresh_processes_give_the_same_bytes"}
    called = {name for fault in FAULTS for name in fault.seen_by.__code__.co_names}
    assert checks <= called
