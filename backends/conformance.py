"""The contract of a backend as executable checks. A backend proves itself with a test file of three lines:

    from backends.conformance import Conformance

    class TestMine(Conformance):
        backend = "mine"

Cases are trained as stacks, so one check covers every activation, penalty and dropout of a task and an optimizer. The
tolerances are those of THEORY.md, "When two backends agree". Needs pytest.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pytest

from backends import draws, get, weights
from backends.base import Backend, Data, Stack
from backends.spec import SGD, Adam, AdamW, EarlyStopping, Model, Regularization, RMSprop, Spec, Task, Train, Trial
from backends.supervisor import Checkpoint, Result, Supervisor, fit

NDArray = np.ndarray[Any, np.dtype[Any]]

TASKS: tuple[Task, ...] = ("regression", "binary", "multiclass")
OUTPUTS = {"regression": 2, "binary": 1, "multiclass": 3}
ACTIVATIONS = ("leaky_relu", "relu", "sigmoid", "tanh")
PENALTIES = ((0.0, 0.0), (2e-3, 0.0), (0.0, 3e-3), (2e-3, 3e-3))
DROPOUTS = (0.0, 0.3)
OPTIMIZERS: dict[str, Any] = {
    "sgd": SGD(name="sgd", learning_rate=0.05, momentum=0.9),
    "nesterov": SGD(name="sgd", learning_rate=0.02, momentum=0.8, nesterov=True),
    "adam": Adam(name="adam", learning_rate=0.01),
    "adamw": AdamW(name="adamw", learning_rate=0.01, weight_decay=0.05),
    "rmsprop": RMSprop(name="rmsprop", learning_rate=0.001),
}
INPUTS, ROWS, BATCH = 7, 70, 16  # 4 whole batches and one of 6 rows in an epoch


def make_data(task: Task) -> Data:
    """70 training and 33 validation rows that a small net can learn."""
    bits = draws.raw_words(7, 99, 0, (ROWS + 33) * INPUTS) >> np.uint64(11)
    X = (bits * 2.0**-52 - 1).reshape(-1, INPUTS) * 1.7
    score = np.stack([np.sin(2 * X[:, 0]) + X[:, 1], X[:, 2] * X[:, 3], X[:, 4] - X[:, 5]], axis=1)
    y = {"regression": score[:, :2], "binary": (score[:, 0] > 0).astype(int), "multiclass": score.argmax(axis=1)}[task]
    return Data(X[:ROWS], y[:ROWS], X[ROWS:], y[ROWS:])


def make_trial(task: Task, **changes: Any) -> Trial:
    """A small trial; `changes` go to whichever block knows their name."""
    blocks: dict[str, dict[str, Any]] = {"model": {"hidden": (9, 5)}, "regularization": {}, "train": {"batch_size": BATCH}}
    blocks["train"] |= {"precision": "float64", "epochs": 50, "optimizer": OPTIMIZERS["adam"]}
    trial: dict[str, Any] = {"seed": 3, "task": task, "inputs": INPUTS, "outputs": OUTPUTS[task]}
    kinds: dict[str, type[Spec]] = {"model": Model, "regularization": Regularization, "train": Train}
    for name, value in changes.items():
        home = next((block for block, kind in kinds.items() if name in kind.model_fields), None)
        (blocks[home] if home else trial)[name] = value
    return Trial.model_validate(trial | {block: kinds[block](**values) for block, values in blocks.items()})


def all_cases(task: Task, **changes: Any) -> list[Trial]:
    """{four activations} x {none, L1, L2, both} x {no dropout, dropout}, with two seeds mixed in."""
    return [
        make_trial(task, activation=a, l1=l1, l2=l2, dropout=p, seed=3 + (number % 2), **changes)
        for number, (a, (l1, l2), p) in enumerate(product(ACTIVATIONS, PENALTIES, DROPOUTS))
    ]


def describe(trial: Trial) -> str:
    """A case in one line, for the message of a failed check."""
    model, penalty, train = trial.model, trial.regularization, trial.train
    return (
        f"{trial.task}, {model.activation}, l1 {penalty.l1}, l2 {penalty.l2}, dropout {model.dropout}, "
        f"{train.optimizer.name}, {train.precision}, seed {trial.seed}"
    )


def assert_close(trials: Sequence[Trial], found: NDArray, expected: NDArray, tolerance: NDArray | float, what: str) -> None:
    """Largest difference within tolerance for each trial (first axis), or a message that names the worst one."""
    gap = np.abs(np.asarray(found, np.float64) - expected).reshape(len(trials), -1).max(axis=1)
    excess = np.where(np.isfinite(gap), gap, np.inf) / np.maximum(tolerance, 1e-300)
    worst = int(excess.argmax())
    allowed = float(np.broadcast_to(tolerance, gap.shape)[worst])
    assert excess[worst] <= 1, f"{what} differs by {gap[worst]:.3g} (allowed {allowed:.3g}): {describe(trials[worst])}"


def assert_same_result(found: Result, expected: Result, tolerance: float = 0.0) -> None:
    """The same course and the same best weights, to the bit unless a tolerance is given."""
    assert (found.reason, found.message, found.best_epoch, found.steps) == (
        expected.reason, expected.message, expected.best_epoch, expected.steps,
    )  # fmt: skip
    assert len(found.history) == len(expected.history)
    for one, other in zip(found.history, expected.history, strict=True):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance) if tolerance else one == other
    if expected.weights is None or found.weights is None:
        assert found.weights is expected.weights
    else:
        np.testing.assert_allclose(found.weights, expected.weights, rtol=tolerance, atol=tolerance)


def states_of_the_reference(trials: Sequence[Trial], data: Data, steps: int) -> Iterator[tuple[Supervisor, Any, Any]]:
    """Walk the reference step by step: (its supervisor after the step, the chunk, the state before it)."""
    walker = Supervisor(get("reference"), trials, data)
    for _ in range(steps):
        before = walker.stack.state()
        chunk = next(walker.chunks(walker.step + 1))
        walker.report(chunk, walker.stack.run(chunk))
        yield walker, chunk, before


def objective(supervisor: Supervisor, steps: int) -> NDArray:
    """E + λΩ at each of the last epoch's steps, (K, steps)."""
    return (supervisor.losses + supervisor.penalties)[:, :steps]


class Conformance:
    """Every check of the contract. A subclass names its backend."""

    backend: ClassVar[str]
    # A stack whose arithmetic differs from its solo runs' (other kernels for other shapes) says by how much, relative.
    stack_tolerance: ClassVar[dict[str, float]] = {"float32": 1e-5, "float64": 1e-12}

    @pytest.fixture
    def subject(self) -> Backend:
        """The backend under test."""
        return get(self.backend)

    # -- one step, and what it is made of -----------------------------------------------------------------------------

    def test_initial_weights_are_the_draws(self, subject: Backend) -> None:
        trials = all_cases("multiclass")
        np.testing.assert_array_equal(subject.stack(trials).weights(), weights.initial(trials))

    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("noisy", [False, True])
    def test_gradients_and_local_gradients_are_the_delta_rule(self, subject: Backend, task: Task, noisy: bool) -> None:
        trials, data = all_cases(task), make_data(task)
        flat = weights.initial(trials)
        keys = draws.noise_keys([3, 4], [11], len(trials[0].dropout))[:, 0] if noisy else None
        arguments = (flat, data.X[:BATCH], data.y[:BATCH], keys)
        found = subject.stack(trials, data).loss_and_gradients(*arguments)
        expected = get("reference").stack(trials, data).loss_and_gradients(*arguments)
        for name in ("logits", "loss", "penalty", "gradient"):
            assert_close(trials, getattr(found, name), getattr(expected, name), 1e-12, name)
        for layer, (mine, theirs) in enumerate(zip(found.delta, expected.delta, strict=True)):
            assert_close(trials, mine, theirs, 1e-12, f"δ of layer {layer + 1}")

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

    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_each_step_from_the_references_state_is_the_references_step(
        self, subject: Backend, task: Task, optimizer: str
    ) -> None:
        trials, data = all_cases(task, optimizer=OPTIMIZERS[optimizer], clip_norm=0.8), make_data(task)
        stack: Stack | None = None
        for walker, chunk, before in states_of_the_reference(trials, data, 7):  # whole batches, a short one, whole again
            stack = stack or subject.stack([trials[m] for m in walker.members], data)
            stack.load(before)
            losses = stack.run(chunk)
            expected = walker.stack.state()
            tolerance = 1e-12 * np.abs(expected["weights"]).max(axis=1)
            assert_close(stack.trials, stack.weights(), expected["weights"], tolerance, f"weights after step {walker.step}")
            at = chunk.step % walker.epoch_steps
            if walker.step % walker.epoch_steps:
                assert_close(stack.trials, losses.loss[:, 0], walker.losses[:, at], 1e-12, "E")
                assert_close(stack.trials, losses.penalty[:, 0], walker.penalties[:, at], 1e-12, "λΩ")

    # -- many steps ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("optimizer", ["sgd", "adam"])
    def test_free_running_in_float64_it_follows_the_reference(self, subject: Backend, task: Task, optimizer: str) -> None:
        trials, data = all_cases(task, optimizer=OPTIMIZERS[optimizer]), make_data(task)
        reference, nudged, mine = self._run(["reference", "nudged", self.backend], trials, data, 200)
        drift = np.abs(nudged.stack.weights() - reference.stack.weights()).max(axis=1)
        allowed = np.maximum(1e-12, 10 * drift)
        assert_close(mine.stack.trials, mine.stack.weights(), reference.stack.weights(), allowed, "weights after 200 steps")

    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("optimizer", ["sgd", "adam"])
    def test_free_running_in_float32_its_outputs_follow_the_reference(self, subject: Backend, task: Task, optimizer: str) -> None:
        trials, data = all_cases(task, optimizer=OPTIMIZERS[optimizer], precision="float32"), make_data(task)
        reference, nudged, mine = self._run(["reference", "nudged", self.backend], trials, data, 99)
        outputs, drifted = reference.stack.predict(), nudged.stack.predict()
        scale = np.abs(outputs).max(axis=(1, 2))
        drift = np.abs(drifted - outputs).max(axis=(1, 2))
        assert_close(
            mine.stack.trials, mine.stack.predict(), outputs, np.maximum(1e-5 * scale, 10 * drift), "outputs after 99 steps"
        )
        gap = np.abs(objective(nudged, 4) - objective(reference, 4)).max(axis=1)
        assert_close(mine.stack.trials, objective(mine, 4), objective(reference, 4), np.maximum(1e-5, 10 * gap), "objective")

    def _run(self, names: Sequence[str], trials: Sequence[Trial], data: Data, steps: int) -> list[Supervisor]:
        """Each backend over the same steps; "nudged" is the reference, its initial weights moved by one ulp."""
        runs = []
        for name in names:
            supervisor = Supervisor(get("reference" if name == "nudged" else name), trials, data)
            if name == "nudged":
                state = supervisor.stack.state()
                supervisor.stack.load(state | {"weights": np.nextafter(state["weights"], np.inf, dtype=state["weights"].dtype)})
            supervisor.run(until_step=steps)
            runs.append(supervisor)
        return runs

    def test_history_and_signals_are_the_references(self, subject: Backend) -> None:
        trials, data = all_cases("multiclass", epochs=3), make_data("multiclass")
        for mine, expected in zip(fit(subject, trials, data), fit(get("reference"), trials, data), strict=True):
            assert_same_result(mine, expected, 1e-9)

    @pytest.mark.parametrize("schedule", [
        {"name": "constant", "warmup": 7}, {"name": "step", "every": 1, "factor": 0.5}, {"name": "cosine", "warmup": 3},
    ])  # fmt: skip
    def test_schedules_and_input_dropout_follow_the_reference(self, subject: Backend, schedule: dict[str, Any]) -> None:
        from pydantic import TypeAdapter

        from backends.spec import Schedule

        built = TypeAdapter(Schedule).validate_python(schedule)
        changes = {"schedule": built, "input_dropout": 0.2, "l2": (1e-3, 0.0, 2e-3), "dropout": (0.4, 0.1), "epochs": 4}
        trials = [make_trial("binary", activation=name, **changes) for name in ("relu", "tanh")]
        data = make_data("binary")
        for mine, expected in zip(fit(subject, trials, data), fit(get("reference"), trials, data), strict=True):
            assert_same_result(mine, expected, 1e-9)

    # -- stacks -------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("precision", ["float32", "float64"])
    def test_a_stack_of_trials_equals_the_trials_alone(self, subject: Backend, task: Task, precision: str) -> None:
        changes = {"precision": precision, "epochs": 6}
        early, hasty = EarlyStopping(patience=1), Adam(name="adam", learning_rate=0.1)
        trials = [
            make_trial(task, activation="tanh", dropout=0.3, seed=1, **changes),
            make_trial(task, activation="relu", l1=1e-3, optimizer=hasty, early_stopping=early, **changes),
            make_trial(task, activation="relu", l2=1e-2, dropout=0.5, seed=2, **changes),
        ]  # fmt: skip
        self._stack_equals_solo(subject, trials, make_data(task), precision)

    @pytest.mark.parametrize("task", TASKS)
    def test_a_diverging_trial_leaves_its_neighbours_alone(self, subject: Backend, task: Task) -> None:
        calm = [make_trial(task, optimizer=OPTIMIZERS["sgd"], seed=s, dropout=0.2, epochs=4) for s in (1, 2)]
        wild = make_trial(task, optimizer=SGD(name="sgd", learning_rate=1e200), epochs=4)
        beside = self._stack_equals_solo(subject, [calm[0], wild, calm[1]], make_data(task), "float64")
        assert beside[1].reason == "diverged" and beside[1].best == {} and beside[1].weights is None
        assert "E + λΩ became" in beside[1].message

    def _stack_equals_solo(self, subject: Backend, trials: list[Trial], data: Data, precision: str) -> list[Result]:
        together = fit(subject, trials, data)
        for trial, result in zip(trials, together, strict=True):
            assert_same_result(result, fit(subject, [trial], data)[0], self.stack_tolerance[precision])
        return together

    def test_pruned_and_stopped_trials_leave_and_the_rest_go_on(self, subject: Backend) -> None:
        trials = [make_trial("multiclass", seed=s, dropout=0.2, epochs=5) for s in range(4)]
        data = make_data("multiclass")
        pruned = fit(subject, trials, data, watch=lambda number, record: number != 2 and record["epoch"] == 1 + number)
        assert [result.reason for result in pruned] == ["pruned", "pruned", "completed", "pruned"]
        assert [len(result.history) for result in pruned] == [1, 2, 5, 4]
        assert_same_result(pruned[2], fit(subject, [trials[2]], data)[0], self.stack_tolerance["float64"])

    # -- resuming, other processes, other backends --------------------------------------------------------------------

    @pytest.mark.parametrize("precision", ["float32", "float64"])
    def test_stopped_at_any_step_it_resumes_to_the_same_bits(self, subject: Backend, precision: str, tmp_path: Any) -> None:
        trials = [
            make_trial("multiclass", activation=a, dropout=0.3, l1=1e-3, seed=s, epochs=3, precision=precision)
            for a, s in (("relu", 1), ("tanh", 2))
        ]
        data = make_data("multiclass")
        through = fit(subject, trials, data)
        for step in (1, 3, 4, 5, 6, 10, 14, 15):  # first, inside an epoch, before and after its short batch, last of all
            half = Supervisor(subject, trials, data)
            half.run(until_step=step)
            half.checkpoint().save(tmp_path / "half.safetensors")
            other = Supervisor(subject, trials, data, resume=Checkpoint.load(tmp_path / "half.safetensors"))
            other.run()
            for found, expected in zip(other.results(), through, strict=True):
                assert_same_result(found, expected)

    @pytest.mark.parametrize("task", TASKS)
    def test_its_weights_predict_the_same_on_the_reference(self, subject: Backend, task: Task, tmp_path: Any) -> None:
        trial, data = make_trial(task, precision="float32", epochs=3, dropout=0.2), make_data(task)
        result = fit(subject, [trial], data)[0]
        assert result.weights is not None
        weights.save(tmp_path / "model.safetensors", trial, result.weights)
        outputs = []
        for backend in (subject, get("reference")):
            loaded, flat = weights.load(tmp_path / "model.safetensors")
            stack = backend.stack([loaded])
            stack.load({"weights": flat[None]})
            outputs.append(stack.predict(data.X_valid))
        np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)

    def test_two_fresh_processes_give_the_same_bytes(self) -> None:
        code = (
            "import json\n"
            "from backends import get, weights\n"
            "from backends.conformance import make_data, make_trial\n"
            "from backends.supervisor import fit\n"
            "trial = make_trial('multiclass', dropout=0.3, l1=1e-4, epochs=3, precision='float32')\n"
            f"result = fit(get({self.backend!r}), [trial], make_data('multiclass'))[0]\n"
            "print(json.dumps([weights.digest(result.weights), result.history]))\n"
        )
        first, second = (
            json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.splitlines()[-1])
            for _ in range(2)
        )
        assert first == second
