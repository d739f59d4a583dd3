"""Folds that train as one stack: each trial as if its fold's rows were all that there is."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from backends import get
from backends.base import Backend, Data
from backends.conformance.cases import every_activation, make_data
from backends.conformance.compare import assert_same_result
from backends.conformance.stacks import assert_every_fate, assert_resumes, prune, through_a_file, trials_of_every_fate, watch_of
from backends.spec import Task, Trial
from backends.supervisor import Supervisor, fit

FOLDS = (2, 3, 5)  # their numbers; the other folds of the five would be of another size


def make_folds(task: Task, rows: int = 70) -> dict[int | None, Data]:
    """Data of each fold: other rows, and inputs on another scale, as each fold's own preprocessing leaves them."""
    whole, folds = make_data(task, rows=3 * rows), dict[int | None, Data]()
    for place, number in enumerate(FOLDS):
        train, valid, scale = slice(place * rows, place * rows + rows), slice(place * 11, place * 11 + 11), 1 + 0.2 * place
        X, X_valid = (scale * part for part in (whole.X[train], whole.X_valid[valid]))
        folds[number] = Data(X, whole.y[train], X_valid, whole.y_valid[valid], (number,))
    return folds


def in_folds(trials: list[Trial]) -> list[Trial]:
    """Dealt out to the folds in turn: some share a seed, some a fold, some both."""
    return [trial.model_copy(update={"fold": FOLDS[place % len(FOLDS)]}) for place, trial in enumerate(trials)]


class FoldChecks:
    """Checks that a stack over several folds is its trials, each on the rows of its own fold."""

    backend: ClassVar[str]
    stack_tolerance: ClassVar[dict[str, float]]

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
