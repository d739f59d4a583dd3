"""What a study varies, and who draws it: `search.space` drawn by an Optuna trial; Optuna's samplers and pruners by name.

A sampler is made anew for each trial: seeded by (seed, trial number), it keeps no state. So a study that is continued draws what
it would have drawn, and nothing has to be pickled.
"""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from math import inf, prod
from typing import TYPE_CHECKING, Any

from pipelines.spec import Choices, Experiment, Range
from pipelines.spec.space import holds, ordered, takes_whole_numbers

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import BaseTrial

RANGE = "range"  # what is drawn for "PATH or" where a value of the range is to be drawn next


def draw(trial: BaseTrial, experiment: Experiment) -> dict[str, Any]:
    """Dotted path -> value to lay over the spec, for every path whose `when` holds, drawn in a fixed order.

    And, where the study wants that, a seed of the trial's own. The trial's params are what Optuna knows of it.
    """
    space = experiment.search.space
    changes: dict[str, Any] = {}
    for path in ordered(space):
        if holds(space[path].when, changes):
            changes[path] = _value(trial, path, space[path])
    found = {path: changes[path] for path in space if path in changes}
    if experiment.search.trial_seeds == "own":  # 31 bits, so that those that follow (search.seeds) are seeds too
        found["seed"] = _bits(f"trial {experiment.search.seed} {trial.number}") >> 1
    return found


def _bits(text: str) -> int:
    """32 that follow from a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _value(trial: BaseTrial, path: str, values: Range | Choices) -> Any:
    if isinstance(values, Choices):
        return _choice(trial, path, list(values.choices))
    if values.others:
        taken = _choice(trial, f"{path} or", [RANGE, *values.others])
        if taken != RANGE:
            return taken
    if values.int or takes_whole_numbers(path):
        return trial.suggest_int(path, int(values.low), int(values.high), step=int(values.step or 1), log=values.log)
    return trial.suggest_float(path, values.low, values.high, step=values.step, log=values.log)


def _choice(trial: BaseTrial, name: str, choices: list[Any]) -> Any:
    """Optuna keeps scalars; a list or mapping is drawn as its JSON text."""
    keyed = {_key(choice): choice for choice in choices}
    return keyed[trial.suggest_categorical(name, list(keyed))]


def _key(choice: Any) -> Any:
    scalar = choice is None or isinstance(choice, bool | int | float | str)
    return choice if scalar else json.dumps(choice, default=list)


def grid(experiment: Experiment) -> dict[str, list[Any]]:
    """Every value of each path, for the grid sampler; the spec has refused what has no list of values."""
    space = experiment.search.space
    return {path: list(map(_key, v.choices)) if isinstance(v, Choices) else _steps(path, v) for path, v in space.items()}


def _steps(path: str, values: Range) -> list[Any]:
    """low, low + step, ..., high, counted in decimals as they are written."""
    low, high, step = (Decimal(str(number)) for number in (values.low, values.high, values.step or 1))
    kind = int if values.int or takes_whole_numbers(path) else float
    return [kind(low + i * step) for i in range(int((high - low) / step) + 1)]


def points(experiment: Experiment) -> float:
    """How many points a space has at most: inf where a range has no step, or each trial a seed of its own."""
    own = experiment.search.trial_seeds == "own"
    return inf if own else prod(_points(path, values) for path, values in experiment.search.space.items())


def _points(path: str, values: Range | Choices) -> float:
    if isinstance(values, Choices):
        return len(values.choices)
    step = values.step or (1 if values.int or takes_whole_numbers(path) else 0)
    return (values.high - values.low) // step + 1 + len(values.others) if step else inf


# -- samplers and pruners --

REDUCTION = 3  # of the trials that go on, a third go on at each rung (Jamieson & Talwalkar 2016; Li et al. 2018)


def sampler(experiment: Experiment, number: int) -> BaseSampler:
    """The sampler that draws trial `number`.

    tpe: Bergstra et al. (2011), multivariate (Falkner et al. 2018); `group` keeps conditional paths in the joint model. qmc:
    scrambled Sobol points (Bergstra & Bengio 2012 compare them with random ones). gp: needs torch and about 0.3 s a trial. grid:
    point `number` of the grid, with which the study ends.
    """
    from optuna import samplers

    class Sobol(samplers.QMCSampler):
        def _find_sample_id(self, *_: Any) -> int:
            """Optuna counts in the study's storage; the trial's own number needs no count, and there is no public way to it."""
            return number

    class Grid(samplers.GridSampler):
        def after_trial(self, *_: Any) -> None:
            """Optuna's own ends `study.optimize`, which does not run here."""

    name, seed = experiment.search.sampler, experiment.search.seed
    own = _bits(f"{seed} {number}")
    if name == "tpe":
        return samplers.TPESampler(seed=own, multivariate=True, group=True, constant_liar=True)
    if name == "grid":
        return Grid(grid(experiment), seed=seed)
    if name == "qmc":
        return Sobol(scramble=True, seed=seed, independent_sampler=samplers.RandomSampler(seed=own))
    if name == "gp":
        return samplers.GPSampler(seed=own, deterministic_objective=True)
    return samplers.RandomSampler(seed=own)


def pruner(experiment: Experiment) -> BasePruner:
    """What judges a trial at its rungs."""
    from optuna import pruners

    name, epochs, first = experiment.search.pruner, experiment.train.epochs, rung_epochs(experiment)
    if name == "halving":
        return halving(first)
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=first, max_resource=epochs, reduction_factor=REDUCTION)
    return pruners.MedianPruner() if name == "median" else pruners.NopPruner()


def halving(first: int) -> BasePruner:
    """Successive halving: at `first`, 3·first, 9·first, ... epochs, the best third of all trials that came there go on.

    Optuna's own, made for workers that do not wait for each other, judges a trial by those that were judged before it, and so
    keeps the first ones whatever they are worth. Here all of a generation have reported before one is judged.
    """
    from optuna.pruners import BasePruner
    from optuna.study import Study, StudyDirection
    from optuna.trial import FrozenTrial

    class Halving(BasePruner):
        def prune(self, study: Study, trial: FrozenTrial) -> bool:
            step = trial.last_step
            if step is None or step % first or REDUCTION**40 % (step // first):  # what divides it is a power of three
                return False
            sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
            there = [one.intermediate_values[step] for one in study.get_trials(deepcopy=False) if step in one.intermediate_values]
            better = sum(sign * value < sign * trial.intermediate_values[step] for value in there)
            return better >= max(1, len(there) // REDUCTION)

    return Halving()


def rung_epochs(experiment: Experiment) -> int:
    """Epochs between two looks: auto is a tenth of all, so that a look costs little beside what it can save."""
    rung = experiment.search.rung
    return max(1, experiment.train.epochs // 10) if rung == "auto" else rung
