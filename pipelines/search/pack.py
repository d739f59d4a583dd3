"""Which networks train together, and how the state of one network leaves a stack and joins another.

A stack's members follow from trial numbers, structure and width alone, never from workers: the arithmetic of a stack may
depend on its width in the last bits, and who computes it must not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from backends.spec import Trial
from backends.supervisor import Checkpoint

NDArray = np.ndarray[Any, np.dtype[Any]]


class Network(NamedTuple):
    """One network of a study: seed and fold number `replica` of Optuna's trial `number`, on one variant of the data."""

    number: int
    replica: int
    variant: str
    trial: Trial
    sizes: tuple[int, int] = (0, 0)  # training and validation rows of its fold


@dataclass(frozen=True)
class State:
    """One network between two rungs: its progress as the supervisor counts it, and its rows of the stack's arrays.

    A network that ended has no arrays, and one that has not begun has a step of 0.
    """

    step: int = 0
    progress: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return not self.progress or self.progress["reason"] == "running"


def stacks(networks: Iterable[Network], width: int) -> list[list[Network]]:
    """Groups of one structure, variant of the data and size of fold, at most `width` networks each, in an order that is fixed.

    Neighbours share their activation where possible: each further one splits every product of the stack.
    """

    def kind(network: Network) -> tuple[str, str, tuple[int, int]]:
        return network.variant, repr(network.trial.structure()), network.sizes

    def place(network: Network) -> tuple[Any, ...]:
        return *kind(network), network.trial.model.activation, network.number, network.replica

    groups = [list(group) for _, group in groupby(sorted(networks, key=place), key=kind)]
    return [
        group[start : start + size]
        for group in groups
        for size in [even(len(group), width)]
        for start in range(0, len(group), size)
    ]


def even(count: int, width: int) -> int:
    """Networks a stack, so that the stacks of a group are as even as can be: 20 at most 16 wide are 10 and 10."""
    return -(-count // -(-count // width))


def join(states: Sequence[State], trials: Sequence[Trial]) -> Checkpoint | None:
    """What a supervisor of these trials goes on from; None at the start. All must stand at the same step."""
    steps = {state.step for state in states}
    if steps == {0}:
        return None
    if len(steps) > 1 or not all(state.arrays for state in states):
        raise ValueError(f"networks of one stack must run and stand at one step, got steps {sorted(steps)}")
    members = sorted(range(len(trials)), key=lambda t: (trials[t].model.activation, t))
    arrays = {name: np.stack([states[m].arrays[name] for m in members]) for name in states[0].arrays}
    numbers = {
        "trials": [trial.model_dump(mode="json") for trial in trials],
        "step": states[0].step,
        "members": members,
        "progress": [state.progress for state in states],
    }
    return Checkpoint(numbers, arrays)


def part(saved: Checkpoint) -> list[State]:
    """The state of each trial, in the order in which the supervisor was given them. Best weights stay behind."""
    numbers, members = saved.numbers, saved.numbers["members"]
    found = []
    for trial, progress in enumerate(numbers["progress"]):
        running = progress["reason"] == "running"
        arrays = {name: value[members.index(trial)] for name, value in _stacked(saved).items()} if running else {}
        found.append(State(numbers["step"], progress, arrays))
    return found


def _stacked(saved: Checkpoint) -> dict[str, NDArray]:
    """The arrays that have a row a member."""
    return {name: value for name, value in saved.arrays.items() if not name.startswith("best.")}
