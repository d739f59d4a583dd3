"""One searched key as an axis: where each trial stands on it, and what its ticks say. The same for every figure of a study."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axis import Axis as Side

    from pipelines.search.records import StudyRecord, TrialRecord

NDArray = np.ndarray[Any, np.dtype[Any]]
APART = 0.17  # of the range: where a value beside it ("off") stands below it
SYMBOLS = {
    "regularization.l1": "λ₁", "regularization.l2": "λ₂", "model.dropout": "dropout p", "model.input_dropout": "input dropout p",
    "train.optimizer.learning_rate": "learning rate η",
}  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """A key, and the place of each trial on it, on the scale on which it was drawn evenly."""

    path: str
    numeric: bool
    places: NDArray  # (trials,), NaN where the key was not drawn
    inside: NDArray  # (trials,) whether the value is one of the range, and neither absent nor a value beside it
    low: float  # the ends of the axis
    high: float
    begins: float  # the end that leaves out values beside the range
    ticks: Sequence[tuple[float, str]]

    @property
    def label(self) -> str:
        """Short for what has a symbol, else the last two parts of the path."""
        return SYMBOLS.get(self.path) or ".".join(self.path.split(".")[-2:])

    def unit(self) -> NDArray:
        """Places scaled so that the axis runs from 0 to 1."""
        return (self.places - self.low) / (self.high - self.low)

    def on(self, side: Side) -> None:
        """Set a side's ticks; limits are left to the caller."""
        side.set_ticks([place for place, _ in self.ticks], [text for _, text in self.ticks])


def axes_of(record: StudyRecord) -> list[Axis]:
    """An axis for each key that any trial drew, in the order of the spec."""
    drawn = dict.fromkeys(path for trial in record.trials for path in trial.params if not path.endswith(" or"))
    also = dict.fromkeys(path[:-3] for trial in record.trials for path in trial.params if path.endswith(" or"))
    space = record.spec.search.space
    paths = sorted({**drawn, **also}, key=lambda path: (list(space).index(path) if path in space else len(space), path))
    return [axis_of(path, space.get(path), record.trials) for path in paths]


def axis_of(path: str, values: Any, trials: Sequence[TrialRecord]) -> Axis:
    """`values`: the entry of search.space, or None where it is not known."""
    found = [_value(trial, path) for trial in trials]
    there = [value for value in found if value is not None]
    if hasattr(values, "choices") or not all(_is_number(value) for value in there):
        return _names(path, list(getattr(values, "choices", ())), found)
    log = bool(getattr(values, "log", False)) and all(value > 0 for value in (values.low, values.high))
    low, high = (values.low, values.high) if values is not None else (min(there), max(there))
    return _numbers(path, found, float(low), float(high), log)


def _value(trial: TrialRecord, path: str) -> Any:
    """What the trial took for a key that it drew: of the range, or a value beside it; None if it did not draw it."""
    if path in trial.params:
        return trial.params[path]
    other = trial.params.get(f"{path} or")
    return trial.changes.get(path, other) if other is not None else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _names(path: str, choices: list[Any], found: Sequence[Any]) -> Axis:
    """Choices stand a unit apart, in the order of the spec, and others after them."""
    names = list(dict.fromkeys([*map(_text, choices), *sorted({_text(value) for value in found if value is not None})]))
    places = np.array([math.nan if value is None else names.index(_text(value)) for value in found], dtype=float)
    ticks = [(float(i), name if len(name) <= 14 else f"{name[:13]}…") for i, name in enumerate(names)]
    return Axis(path, False, places, ~np.isnan(places), -0.5, len(names) - 0.5, -0.5, ticks)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=list)


def _numbers(path: str, found: Sequence[Any], low: float, high: float, log: bool) -> Axis:
    if low == high:
        low, high = low - 0.5, high + 0.5
    raw = np.array([math.nan if value is None else float(value) for value in found])
    inside = (raw >= low) & (raw <= high)
    start, end = (math.log10(low), math.log10(high)) if log else (low, high)
    places = np.where(inside, np.log10(np.where(inside, raw, 1)) if log else raw, math.nan)
    beside = sorted({float(value) for value in raw[~inside] if not math.isnan(value)})
    ticks = _ticks(start, end, log)
    step = APART * (end - start)
    for i, value in enumerate(reversed(beside), start=1):
        places[raw == value] = start - i * step
        ticks.insert(0, (start - i * step, f"{value:g}"))
    margin = 0.03 * (end - start)
    below = start - step * (len(beside) + 0.5) if beside else start - margin
    return Axis(path, True, places, inside, below, end + margin, start - margin, ticks)


def _ticks(start: float, end: float, log: bool) -> list[tuple[float, str]]:
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(4, integer=log and end - start >= 2).tick_values(start, end)
    kept = [float(place) for place in found if start - 1e-9 <= place <= end + 1e-9]
    return [(place, _decade(10**place) if log else f"{round(place, 10):g}") for place in kept]


def _decade(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if value < 0.01 or value >= 1e4 else f"{value:.2g}"
