"""Many steps: a run stays with the reference's as far as any code could; a stack is its trials, each as if it were alone, on its
own fold; and a run that is taken up again goes on as if it had never been interrupted."""

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
from backends.conformance.cases import (
    ALL_LEVELS,
    FREE_STEPS,
    STRUCTURES,
    TASKS,
    cases,
    every_activation,
    make_data,
    make_trial,
    some_row_weights,
    some_weights,
)
from backends.conformance.compare import (
    DRIFTS,
    FREE_TOLERANCE,
    SINGLE_TOLERANCE,
    assert_close,
    assert_same_history,
    assert_same_result,
    assert_same_results,
    course,
    largest,
    on_structures,
    run,
)
from backends.spec import SGD, Cosine, EarlyStopping, Task, Trial
from backends.supervisor import Checkpoint, Record, Result, Supervisor, Watch, fit

SINGLE_STEPS = 100
FOLDS = (2, 3, 5)  # their numbers; the other folds of the five would be of another size
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


def make_folds(task: Task, rows: int = 70) -> dict[int | None, Data]:
    """Data of each fold: other rows, and inputs on another scale, as each fold's own preprocessing leaves them."""
    whole, folds = make_data(task, rows=3 * rows), dict[int | None, Data]()
    for place, number in enumerate(FOLDS):
        train, valid, scale = slice(place * rows, place * rows + rows), slice(place * 11, place * 11 + 11), 1 + 0.2 * place
        X, X_valid = (scale * part for part in (whole.X[train], whole.X_valid[valid]))
        w = scale**20 * some_row_weights(rows) if task == "multiclass" else None
        folds[number] = Data(X, whole.y[train], X_valid, whole.y_valid[valid], (number,), w)
    return folds


def in_folds(trials: list[Trial]) -> list[Trial]:
    """Dealt out to the folds in turn: some share a seed, some a fold, some both."""
    return [trial.model_copy(update={"fold": FOLDS[place % len(FOLDS)]}) for place, trial in enumerate(trials)]


class RunChecks:
    """Checks of whole runs."""

    backend: ClassVar[str]
    stack_tolerance: ClassVar[dict[str, float]]

    @on_structures(range(len(STRUCTURES)))
    def test_free_running_in_float64_it_follows_the_reference(self, subject: Backend, structure: int) -> None:
        expected = course(structure)
        mine, trials = run(subject, structure, "float64", FREE_STEPS), cases(structure).trials
        allowed = np.maximum(FREE_TOLERANCE, DRIFTS * largest(expected.nudged.weights - expected.end.weights))
        assert_close(trials, mine.weights, expected.end.weights, allowed, f"weights after {FREE_STEPS} steps")
        for one, other in zip(mine.progress, expected.end.progress, strict=True):
            assert (one.reason, one.steps) == ("running", FREE_STEPS)
            assert_same_history(one.history[:3], other.history[:3], 1e-9)

    @on_structures(ALL_LEVELS)
    def test_free_running_in_float32_outputs_and_objective_follow_the_reference(self, subject: Backend, structure: int) -> None:
        """Never the weights: sign(W) of one that only its penalty moves may flip."""
        expected, trials = course(structure, "float32", SINGLE_STEPS), cases(structure, "float32").trials
        mine = run(subject, structure, "float32", SINGLE_STEPS)
        for what in ("outputs", "objective"):
            here, there, drifted = (getattr(run, what) for run in (mine, expected.end, expected.nudged))
            allowed = np.maximum(SINGLE_TOLERANCE * np.maximum(1.0, largest(there)), DRIFTS * largest(drifted - there))
            assert_close(trials, here, there, allowed, f"{what} after {SINGLE_STEPS} steps")

    def test_results_and_signals_are_the_references(self, subject: Backend) -> None:
        trials, data = every_activation("multiclass", epochs=3), make_data("multiclass")
        assert_same_results(fit(subject, trials, data), fit(get("reference"), trials, data), 1e-9)

    # -- a stack is its trials --

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

    # -- stopped and taken up again --

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

    # -- other backends, other processes --

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

    # -- folds --

    @pytest.mark.parametrize(("task", "precision"), [("multiclass", "float64"), ("regression", "float32")])
    def test_trials_of_several_folds_equal_their_solo_runs_on_the_rows_of_their_fold(
        self, subject: Backend, task: Task, precision: str
    ) -> None:
        """While others stop, diverge and are pruned, and the stack is rebuilt."""
        folds, trials = make_folds(task), in_folds(trials_of_every_fate(task, precision))
        together = fit(subject, trials, Data.of_folds(folds), watch=prune)
        assert_every_fate(together)
        for number, (trial, beside) in enumerate(zip(trials, together, strict=True)):
            assert trial.fold is not None
            (alone,) = fit(subject, [trial], folds[trial.fold], watch=watch_of(number))
            assert_same_result(beside, alone, self.stack_tolerance[precision])

    def test_each_trial_is_probed_and_validated_on_the_rows_of_its_own_fold(self, subject: Backend) -> None:
        """Also with more rows than are probed, and where all trials that are left have one fold."""
        folds, trials = make_folds("multiclass", rows=1100), in_folds(every_activation("multiclass"))
        stack = subject.stack(trials, Data.of_folds(folds))
        for kept in (range(len(trials)), [4, 8, 1, 5], [1, 2], [0]):
            stack.keep(kept)
            signals, outputs = stack.probe(), stack.predict()
            for k, trial in enumerate(stack.trials):
                assert trial.fold is not None
                alone = get("reference").stack([trial], folds[trial.fold])
                mine = (outputs[k], *(values[k] for values in signals))
                for found, expected in zip(mine, (alone.predict()[0], *(v[0] for v in alone.probe())), strict=True):
                    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
            given = folds[3].X_valid[:4]  # the same rows for all, whatever their fold
            np.testing.assert_allclose(
                stack.predict(given), get("reference").stack(stack.trials).predict(given), rtol=1e-9, atol=1e-12
            )

    def test_folds_resume_to_the_same_bits(self, subject: Backend, tmp_path: Path) -> None:
        data, trials = Data.of_folds(make_folds("multiclass")), in_folds(trials_of_every_fate("multiclass", "float64"))
        through, paused = fit(subject, trials, data, watch=prune), Supervisor(subject, trials, data, watch=prune)
        for step in (3, 14, 22):
            paused.run(until_step=step)
            assert_resumes(subject, trials, data, through_a_file(paused.checkpoint(), tmp_path), through)

    def test_a_fold_that_the_data_do_not_have_is_refused(self, subject: Backend) -> None:
        with pytest.raises(ValueError, match="fold must be one of the data's, 2, 3, 5, got None"):
            subject.stack(every_activation("binary"), Data.of_folds(make_folds("binary")))
