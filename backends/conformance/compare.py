"""How two results are held against each other, and what the reference did: docs/theory.md, "When two backends agree"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from backends import get
from backends.base import Backend, Chunk, Losses, State
from backends.conformance.cases import FREE_STEPS, STRUCTURE_NAMES, cases, describe
from backends.spec import NDArray, Trial
from backends.supervisor import Progress, Record, Result, Supervisor

STEP_TOLERANCE = 1e-12  # of max|W|, after one step from the same state, float64
FREE_TOLERANCE, DRIFTS = 1e-12, 10.0  # or ten times the reference's own drift, after many steps
SINGLE_TOLERANCE = 1e-5  # of the largest output, and of the objective, in float32
# Steps from whose states each backend takes one: the first ones, round the ends of the first epochs (5, 70 or 1 steps
# long), and some late ones.
LOOKED_AT = {0, 1, 2, 3, 4, 5, 9, 10, 14, 15, 35, 69, 70, 71, 100, 139, 140, 180, FREE_STEPS - 1}


def on_structures(numbers: Iterable[int]) -> pytest.MarkDecorator:
    """Run a check on these stacks of the covering list.

    With the scope of a class, all checks of one stack follow one another, and one traced graph serves them all.
    """
    chosen = list(numbers)
    names = [STRUCTURE_NAMES[number] for number in chosen]
    return pytest.mark.parametrize("structure", chosen, ids=names, scope="class")


def assert_close(trials: Sequence[Trial], found: NDArray, expected: NDArray, tolerance: NDArray | float, what: str) -> None:
    """Largest difference within tolerance for each trial (first axis), or a message that names the worst one."""
    assert found.shape == expected.shape, f"{what} must have the shape {expected.shape}, got {found.shape}"
    if not expected.size:
        return
    gap = np.abs(np.asarray(found, np.float64) - expected).reshape(len(trials), -1).max(axis=1)
    excess = np.where(np.isfinite(gap), gap, np.inf) / np.maximum(tolerance, 1e-300)
    worst = int(excess.argmax())
    allowed = float(np.broadcast_to(tolerance, gap.shape)[worst])
    assert excess[worst] <= 1, f"{what} differs by {gap[worst]:.3g} (allowed {allowed:.3g}): {describe(trials[worst])}"


def largest(values: NDArray) -> NDArray:
    """max|.| of each trial (first axis)."""
    numbers: NDArray = np.abs(values).reshape(len(values), -1).max(axis=1)
    return numbers


def assert_same_state(trials: Sequence[Trial], found: State, expected: State, relative: float, when: str) -> None:
    """The same arrays under the same names, within a share of the largest number of each trial."""
    assert set(found) == set(expected), f"a state {when} must hold {sorted(expected)}, got {sorted(found)}"
    for name, value in expected.items():
        assert_close(trials, found[name], value, relative * largest(value), f"{name} {when}")


def assert_same_losses(trials: Sequence[Trial], found: Losses, expected: Losses, when: str) -> None:
    """E and λΩ of the same steps, float64."""
    for name, mine, theirs in zip(("E", "λΩ"), found[:2], expected[:2], strict=True):
        assert_close(trials, mine, theirs, 1e-12 * np.maximum(1.0, largest(theirs)), f"{name} {when}")


def assert_same_result(found: Result, expected: Result, tolerance: float = 0.0) -> None:
    """The same course and the same best weights, to the bit unless a tolerance is given."""
    assert (found.reason, found.message, found.best_epoch, found.steps) == (
        expected.reason, expected.message, expected.best_epoch, expected.steps,
    )  # fmt: skip
    assert_same_history(found.history, expected.history, tolerance)
    if expected.weights is None or found.weights is None:
        assert found.weights is expected.weights
    else:
        size = max(1.0, float(np.abs(expected.weights).max()))  # rounding of a run that diverges grows with its largest weight
        np.testing.assert_allclose(found.weights, expected.weights, rtol=tolerance, atol=tolerance * size)


def assert_same_results(found: Sequence[Result], expected: Sequence[Result], tolerance: float = 0.0) -> None:
    """The same of every trial."""
    for one, other in zip(found, expected, strict=True):
        assert_same_result(one, other, tolerance)


def assert_same_history(found: Sequence[Record], expected: Sequence[Record], tolerance: float = 0.0) -> None:
    """The same epochs, number by number."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance) if tolerance else one == other


# -- what the reference did --


class Moment(NamedTuple):
    """One step of the reference."""

    chunk: Chunk
    before: State
    losses: Losses
    after: State


class Run(NamedTuple):
    """Where a run came to."""

    progress: list[Progress]
    weights: NDArray  # (K, P)
    outputs: NDArray  # (K, m, O), on the validation rows

    @staticmethod
    def of(supervisor: Supervisor) -> Run:
        """As it stands."""
        return Run(supervisor.progress, supervisor.stack.weights(), supervisor.stack.predict())

    @property
    def objective(self) -> NDArray:
        """E + λΩ of every epoch, (K, epochs)."""
        return np.array([[record["train_objective"] for record in progress.history] for progress in self.progress])


class Course(NamedTuple):
    """A run of the reference, and what became of it after its initial weights were moved by one ulp."""

    moments: tuple[Moment, ...]
    end: Run
    nudged: Run


@cache
def course(structure: int, precision: str = "float64", steps: int = FREE_STEPS) -> Course:
    """The reference on one stack of the covering list; worked out once, for every backend of this process."""
    return follow_reference(structure, precision, steps)


def follow_reference(structure: int, precision: str, steps: int) -> Course:
    """What `course` keeps."""
    stack = cases(structure, precision)
    walker, moments = Supervisor(get("reference"), stack.trials, stack.data), list[Moment]()
    for step in range(steps):
        before, chunk = walker.stack.state(), next(walker.chunks(step + 1))
        losses = walker.stack.run(chunk)
        walker.report(chunk, losses)
        if step in LOOKED_AT:
            moments.append(Moment(chunk, before, losses, walker.stack.state()))
    return Course(tuple(moments), Run.of(walker), run(get("reference"), structure, precision, steps, nudge=True))


def run(backend: Backend, structure: int, precision: str, steps: int, *, nudge: bool = False) -> Run:
    """A backend over so many steps of one stack; with `nudge`, from initial weights that are moved by one ulp."""
    stack = cases(structure, precision)
    supervisor = Supervisor(backend, stack.trials, stack.data)
    if nudge:
        state = supervisor.stack.state()
        kind = state["weights"].dtype
        supervisor.stack.load(state | {"weights": np.nextafter(state["weights"], kind.type(np.inf))})
    supervisor.run(until_step=steps)
    return Run.of(supervisor)
