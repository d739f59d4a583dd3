"""Many steps: a backend that runs freely stays with the reference as far as any code could."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from backends import get
from backends.base import Backend
from backends.conformance.cases import ALL_LEVELS, FREE_STEPS, STRUCTURES, cases, every_activation, make_data
from backends.conformance.compare import (
    DRIFTS,
    FREE_TOLERANCE,
    SINGLE_TOLERANCE,
    assert_close,
    assert_same_history,
    assert_same_results,
    course,
    largest,
    on_structures,
    run,
)
from backends.supervisor import Supervisor, fit

NDArray = np.ndarray[Any, np.dtype[Any]]
SINGLE_STEPS = 100


class CourseChecks:
    """Checks of whole runs against the reference's."""

    backend: ClassVar[str]

    @on_structures(range(len(STRUCTURES)))
    def test_free_running_in_float64_it_follows_the_reference(self, subject: Backend, structure: int) -> None:
        expected = course(structure)
        stack = cases(structure)
        mine = run(subject, stack.trials, stack.data, FREE_STEPS)
        weights, drifted = expected.end.stack.weights(), expected.nudged.stack.weights()
        allowed = np.maximum(FREE_TOLERANCE, DRIFTS * largest(drifted - weights))
        assert_close(stack.trials, mine.stack.weights(), weights, allowed, f"weights after {FREE_STEPS} steps")
        for one, other in zip(mine.progress, expected.end.progress, strict=True):
            assert (one.reason, one.steps) == ("running", FREE_STEPS)
            assert_same_history(one.history[:3], other.history[:3], 1e-9)

    @on_structures(ALL_LEVELS)
    def test_free_running_in_float32_outputs_and_objective_follow_the_reference(self, subject: Backend, structure: int) -> None:
        """Never the weights: sign(W) of one that only its penalty moves may flip."""
        expected, stack = course(structure, "float32", SINGLE_STEPS), cases(structure, "float32")
        mine = run(subject, stack.trials, stack.data, SINGLE_STEPS)
        for what, quantity in (("outputs", _outputs), ("objective", _objective)):
            here, there, drifted = (quantity(run) for run in (mine, expected.end, expected.nudged))
            allowed = np.maximum(SINGLE_TOLERANCE * np.maximum(1.0, largest(there)), DRIFTS * largest(drifted - there))
            assert_close(stack.trials, here, there, allowed, f"{what} after {SINGLE_STEPS} steps")

    def test_results_and_signals_are_the_references(self, subject: Backend) -> None:
        trials, data = every_activation("multiclass", epochs=3), make_data("multiclass")
        assert_same_results(fit(subject, trials, data), fit(get("reference"), trials, data), 1e-9)


def _outputs(supervisor: Supervisor) -> NDArray:
    return supervisor.stack.predict()


def _objective(supervisor: Supervisor) -> NDArray:
    """E + λΩ of every epoch, (K, epochs)."""
    return np.array([[record["train_objective"] for record in progress.history] for progress in supervisor.progress])
