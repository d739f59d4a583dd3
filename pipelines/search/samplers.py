"""Optuna's samplers and pruners by name, each made anew for a trial: seeded by (seed, trial number), they keep no state.

So a study that is continued draws what it would have drawn, and nothing has to be pickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipelines.search.space import grid

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from pipelines.spec import Experiment

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
