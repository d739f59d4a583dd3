"""What a study varies, and who draws it: `search.space` drawn by an Optuna trial; Optuna's samplers and pruners by name.

A sampler is made anew for each trial: seeded by (seed, trial number), it keeps no state. So a study that is continued draws what
it would have drawn, and nothing has to be pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from decimal import Decimal
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
    own = {"seed": own_seed(experiment.search.seed, trial.number)} if experiment.search.trial_seeds == "own" else {}
    return {path: changes[path] for path in space if path in changes} | own


def own_seed(seed: int, number: int) -> int:
    """31 bits for trial `number`, so that those that follow (search.seeds) are seeds too."""
    return int.from_bytes(hashlib.sha256(f"trial {seed} {number}".encode()).digest()[:4], "big") >> 1


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


# -- samplers and pruners -------------------------------------------------------------------------------------------------

REDUCTION = 3  # of the trials that go on, a third go on at each rung (Jamieson & Talwalkar 2016; Li et al. 2018)


def seed_of(seed: int, number: int) -> int:
    """32 bits for one trial."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "big")


def sampler(experiment: Experiment, number: int) -> BaseSampler:
    """The sampler that draws trial `number`."""
    return SAMPLERS[experiment.search.sampler](experiment, number)


def _tpe(experiment: Experiment, number: int) -> BaseSampler:
    """Bergstra et al. (2011), multivariate (Falkner et al. 2018); `group` keeps conditional paths in the joint model."""
    from optuna.samplers import TPESampler

    seed = seed_of(experiment.search.seed, number)
    return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def _random(experiment: Experiment, number: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed_of(experiment.search.seed, number))


def _grid(experiment: Experiment, number: int) -> BaseSampler:
    """Point `number` of the grid; the driver ends the study with the grid."""
    from optuna.samplers import GridSampler

    class Grid(GridSampler):
        def after_trial(self, *_: Any) -> None:
            """Optuna's own ends `study.optimize`, which does not run here."""

    return Grid(grid(experiment), seed=experiment.search.seed)


def _qmc(experiment: Experiment, number: int) -> BaseSampler:
    """Scrambled Sobol points (Bergstra & Bengio 2012 compare them with random ones)."""
    from optuna.samplers import QMCSampler, RandomSampler

    class Sobol(QMCSampler):
        def _find_sample_id(self, *_: Any) -> int:
            """Optuna counts in the study's storage; the trial's own number needs no count."""
            return number

    rest = RandomSampler(seed=seed_of(experiment.search.seed, number))
    return Sobol(scramble=True, seed=experiment.search.seed, independent_sampler=rest)


def _gp(experiment: Experiment, number: int) -> BaseSampler:
    """Gaussian process; needs torch and about 0.3 s a trial."""
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed_of(experiment.search.seed, number), deterministic_objective=True)


SAMPLERS: dict[str, Callable[[Experiment, int], BaseSampler]] = {
    "tpe": _tpe, "random": _random, "grid": _grid, "qmc": _qmc, "gp": _gp,
}  # fmt: skip


def pruner(experiment: Experiment) -> BasePruner:
    """What judges a trial at its rungs."""
    from optuna import pruners

    name, epochs, first = experiment.search.pruner, experiment.train.epochs, rung_epochs(experiment)
    if name == "median":
        return pruners.MedianPruner()
    if name == "halving":
        return halving(first)
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=first, max_resource=epochs, reduction_factor=REDUCTION)
    return pruners.NopPruner()


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
            if step is None or not _is_rung(step, first):
                return False
            sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
            there = [one.intermediate_values[step] for one in study.get_trials(deepcopy=False) if step in one.intermediate_values]
            better = sum(sign * value < sign * trial.intermediate_values[step] for value in there)
            return better >= max(1, len(there) // REDUCTION)

    return Halving()


def _is_rung(epoch: int, first: int) -> bool:
    """first · 3^k."""
    while epoch > first and epoch % REDUCTION == 0:
        epoch //= REDUCTION
    return epoch == first


def rung_epochs(experiment: Experiment) -> int:
    """Epochs between two looks: auto is a tenth of all, so that a look costs little beside what it can save."""
    rung = experiment.search.rung
    return max(1, experiment.train.epochs // 10) if rung == "auto" else rung
