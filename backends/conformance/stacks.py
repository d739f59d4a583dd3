"""Trials that train together: each as if it were alone, whatever becomes of the others; and a run that is taken up again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from backends import get, weights
from backends.base import Backend, Chunk, Data, Losses
from backends.conformance.cases import TASKS, make_data, make_trial, some_weights
from backends.conformance.compare import assert_same_result, assert_same_results
from backends.spec import SGD, Cosine, EarlyStopping, Task, Trial
from backends.supervisor import Checkpoint, Record, Result, Supervisor, Watch, fit

# By how much the weights of a trial that is to diverge grow a step: its penalty overflows at its 7th and 15th step.
GROWTH = {"float64": (1e20, 1e10), "float32": (400.0, 20.0)}
PRUNED_AFTER = {4: 2, 5: 4}  # trial -> epochs
FATES = ["completed", "diverged", "diverged", "early_stopping", "pruned", "pruned", "completed", "diverged"]


def trials_of_every_fate(task: Task, precision: str) -> list[Trial]:
    """Eight trials that end in every way there is, at different times, in the middle of an epoch and at its end."""

    def one(activation: str, seed: int, rate: float = 0.05, l2: float = 1e-3, **changes: Any) -> Trial:
        optimizer = SGD(name="sgd", learning_rate=rate, momentum=changes.pop("momentum", 0.0))
        changes = {"epochs": 6, "dropout": 0.2, "precision": precision} | changes
        return make_trial(task, activation=activation, seed=seed, optimizer=optimizer, l2=l2, **changes)

    soon, late = GROWTH[precision]
    return [
        one("tanh", 1, momentum=0.9),
        one("tanh", 2, rate=1.0, l2=soon / 2),
        one("relu", 1, rate=1e30),
        one("relu", 2, rate=1e-30, early_stopping=EarlyStopping(patience=2)),  # its weights do not change, so no epoch is better
        one("relu", 3, dropout=0.5, class_weights=some_weights(task)),
        one("tanh", 3, l1=1e-3, class_weights=some_weights(task, 1)),
        one("relu", 1, epochs=3),
        one("tanh", 1, rate=1.0, l2=late / 2),
    ]


def prune(number: int, record: Record) -> bool:
    """The verdict on each of these trials."""
    return record["epoch"] == PRUNED_AFTER.get(number)


def assert_every_fate(results: list[Result]) -> None:
    """The trials are of use only if they end as they should."""
    assert [result.reason for result in results] == FATES
    ends = [result.steps for result in results]
    assert ends[2] < ends[1] < ends[4] < ends[7] < ends[5] < ends[0], ends


class StackChecks:
    """Checks that a stack is its trials, and that a run is the sum of its parts."""

    backend: ClassVar[str]
    stack_tolerance: ClassVar[dict[str, float]]

    @pytest.mark.parametrize(("task", "precision"), [("regression", "float64"), ("binary", "float32"), ("multiclass", "float64")])
    def test_trials_that_stop_diverge_and_are_pruned_at_different_times_equal_their_solo_runs(
        self, subject: Backend, task: Task, precision: str
    ) -> None:
        trials, data = trials_of_every_fate(task, precision), make_data(task)
        together = fit(subject, trials, data, watch=prune)
        assert_every_fate(together)
        for number, (trial, beside) in enumerate(zip(trials, together, strict=True)):
            alone = fit(subject, [trial], data, watch=watch_of(number))[0]
            assert_same_result(beside, alone, self.stack_tolerance[precision])

    @pytest.mark.parametrize("task", TASKS)
    def test_a_trial_that_diverges_at_once_has_neither_weights_nor_a_best_epoch(self, subject: Backend, task: Task) -> None:
        wild = make_trial(task, optimizer=SGD(name="sgd", learning_rate=1e200), epochs=4)
        (result,) = fit(subject, [wild], make_data(task))
        assert (result.reason, result.best, result.weights, result.history) == ("diverged", {}, None, [])
        assert "E + λΩ became" in result.message

    # -- stopped and taken up again -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("precision", ["float32", "float64"])
    def test_stopped_at_any_step_it_resumes_to_the_same_bits(self, subject: Backend, precision: str, tmp_path: Path) -> None:
        changes = {"dropout": 0.3, "l1": 1e-3, "epochs": 3, "schedule": Cosine(name="cosine", warmup=4), "precision": precision}
        trials = [make_trial("multiclass", activation=a, seed=s, **changes) for a, s in (("relu", 1), ("tanh", 2))]
        data, paused = make_data("multiclass"), None
        through = fit(subject, trials, data)
        for step in (1, 3, 4, 5, 6, 10, 14, 15):  # first, inside an epoch, before and after its short batch, last of all
            paused = paused or Supervisor(subject, trials, data)
            paused.run(until_step=step)
            saved = through_a_file(paused.checkpoint(), tmp_path)
            assert saved.numbers["step"] == step
            assert_resumes(subject, trials, data, saved, through)
        assert paused is not None
        assert_same_results(paused.results(), through)

    def test_it_resumes_to_the_same_bits_after_trials_ended_and_the_stack_was_rebuilt(
        self, subject: Backend, tmp_path: Path
    ) -> None:
        """From between any two chunks: with trials that ended in the stack, just before it is rebuilt, and after that."""
        trials, data = trials_of_every_fate("multiclass", "float64"), make_data("multiclass")
        through = Supervisor(subject, trials, data, watch=prune)
        saved = list[Checkpoint]()

        def report_and_save(chunk: Chunk, losses: Losses) -> None:
            through.report(chunk, losses)
            saved.append(through_a_file(through.checkpoint(), tmp_path))

        through.run(report=report_and_save)
        assert_every_fate(through.results())
        assert [checkpoint.numbers["step"] for checkpoint in saved] == [4, 5, 9, 10, 14, 15, 19, 20, 24, 25, 29, 30]
        assert len({len(checkpoint.numbers["members"]) for checkpoint in saved}) > 2
        for checkpoint in saved:
            assert_resumes(subject, trials, data, checkpoint, through.results())

    # -- other backends, other processes ------------------------------------------------------------------------------

    @pytest.mark.parametrize("task", TASKS)
    def test_its_weights_predict_the_same_on_the_reference(self, subject: Backend, task: Task, tmp_path: Path) -> None:
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
        started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
        first, second = (json.loads(process.communicate()[0].splitlines()[-1]) for process in started)
        assert first == second


def watch_of(number: int) -> Watch:
    """The verdict on one of these trials, when it is alone."""
    return lambda _, record: prune(number, record)


def assert_resumes(subject: Backend, trials: list[Trial], data: Data, saved: Checkpoint, expected: list[Result]) -> None:
    """From a checkpoint on, to the same bits; trials are pruned as `prune` says."""
    resumed = Supervisor(subject, trials, data, watch=prune, resume=saved)
    assert resumed.step == saved.numbers["step"]
    resumed.run()
    assert_same_results(resumed.results(), expected)


def through_a_file(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    checkpoint.save(folder / "half.safetensors")
    return Checkpoint.load(folder / "half.safetensors")
