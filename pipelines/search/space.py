"""What a study varies: drawing values from `search.space` by an Optuna trial, and laying them over the spec.

Works with any Optuna trial, a study's own or one that you drive yourself.
"""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from pipelines.spec import Choices, Experiment, Range
from pipelines.spec.space import holds, ordered, takes_whole_numbers

RANGE = "range"  # what is drawn for "PATH or" where a value of the range is to be drawn next


class Draws(Protocol):
    """The part of optuna.trial.Trial that is used here."""

    @property
    def number(self) -> int: ...
    def suggest_categorical(self, name: str, choices: list[Any]) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float: ...


class Drawn(NamedTuple):
    """What Optuna knows, and what it means: name -> value drawn, dotted path -> value to lay over the spec."""

    params: dict[str, Any]
    changes: dict[str, Any]


def draw(trial: Draws, experiment: Experiment) -> Drawn:
    """A value for every path whose `when` holds, in a fixed order; and, where the study wants that, a seed of the trial's own."""
    space = experiment.search.space
    params: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    for path in ordered(space):
        if holds(space[path].when, changes):
            changes[path] = _value(trial, path, space[path], params)
    own = {"seed": own_seed(experiment.search.seed, trial.number)} if experiment.search.trial_seeds == "own" else {}
    return Drawn(params, {path: changes[path] for path in space if path in changes} | own)


def own_seed(seed: int, number: int) -> int:
    """31 bits for trial `number`, so that those that follow (search.seeds) are seeds too."""
    return int.from_bytes(hashlib.sha256(f"trial {seed} {number}".encode()).digest()[:4], "big") >> 1


def _value(trial: Draws, path: str, values: Range | Choices, params: dict[str, Any]) -> Any:
    if isinstance(values, Choices):
        return _choice(trial, path, list(values.choices), params)
    if values.others:
        taken = _choice(trial, f"{path} or", [RANGE, *values.others], params)
        if taken != RANGE:
            return taken
    return _number(trial, path, values, params)


def _choice(trial: Draws, name: str, choices: list[Any], params: dict[str, Any]) -> Any:
    """Optuna keeps scalars; a list or mapping is drawn as its JSON text."""
    keyed = {_key(choice): choice for choice in choices}
    params[name] = trial.suggest_categorical(name, list(keyed))
    return keyed[params[name]]


def _key(choice: Any) -> Any:
    scalar = choice is None or isinstance(choice, bool | int | float | str)
    return choice if scalar else json.dumps(choice, default=list)


def _number(trial: Draws, path: str, values: Range, params: dict[str, Any]) -> int | float:
    if values.int or takes_whole_numbers(path):
        step = int(values.step or 1)
        params[path] = trial.suggest_int(path, int(values.low), int(values.high), step=step, log=values.log)
    else:
        params[path] = trial.suggest_float(path, values.low, values.high, step=values.step, log=values.log)
    return params[path]


def grid(experiment: Experiment) -> dict[str, list[Any]]:
    """Every value of each path, for the grid sampler; the spec has refused what has no list of values."""
    space = experiment.search.space
    return {path: list(map(_key, v.choices)) if isinstance(v, Choices) else _steps(path, v) for path, v in space.items()}


def _steps(path: str, values: Range) -> list[Any]:
    """low, low + step, ..., high, counted in decimals as they are written."""
    low, high, step = (Decimal(str(number)) for number in (values.low, values.high, values.step or 1))
    kind = int if values.int or takes_whole_numbers(path) else float
    return [kind(low + i * step) for i in range(int((high - low) / step) + 1)]
