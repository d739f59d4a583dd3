"""Where a study stands, for those who watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Look(NamedTuple):
    """Where a study stands, for those who watch."""

    total: int  # trials that are wanted in all
    states: Mapping[str, int]  # COMPLETE, PRUNED, FAIL -> how many trials ended so
    running: int
    best: tuple[float, int] | None  # the best value of the first metric so far, and its trial
    saved: float  # share of all epochs so far that pruning saved


Watch = Callable[[Look], None]


class Tally:
    """Sums over the trials that are over. Holds no trial: a study of any length takes the same memory."""

    def __init__(self, direction: str, epochs: int) -> None:
        """`direction` of the first metric; `epochs` that a trial may take."""
        self.downwards, self.each = direction == "minimize", epochs
        self.states: Counter[str] = Counter()
        self.best: tuple[float, int] | None = None
        self.saved = self.possible = 0

    def add(self, number: int, state: str, value: float | None, epochs: int) -> None:
        """One trial more."""
        self.states[state] += 1
        self.possible += self.each
        self.saved += self.each - epochs if state == "PRUNED" else 0
        if state == "COMPLETE" and value is not None and (self.best is None or self._better(value, self.best[0])):
            self.best = (value, number)

    def look(self, total: int, running: int) -> Look:
        """As it stands now."""
        return Look(total, dict(self.states), running, self.best, self.saved / max(1, self.possible))

    def _better(self, value: float, than: float) -> bool:
        return value < than if self.downwards else value > than
