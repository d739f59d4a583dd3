"""The mirror decides, the storage records.

All asking, reporting, pruning and telling happens in a study in memory, and is then written down in the real one. The mirror
of a study that goes on is built from the trials of its finished generations, so it decides what it would have decided:
nothing that another generation's trials did later is in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipelines.search import samplers
from pipelines.search.space import Drawn, draw

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from pipelines.spec import Experiment

OURS = "deltarule"  # the user attribute of a trial that holds what Optuna has no place for


class Mirror:
    """One study in memory. All have one name: hyperband deals its brackets by it, and a study's name must change no trial."""

    def __init__(self, experiment: Experiment, finished: Sequence[FrozenTrial]) -> None:
        with quiet() as optuna:
            directions = list(experiment.search.directions)
            self.study = optuna.create_study(study_name="mirror", directions=directions, pruner=samplers.pruner(experiment))
            self.study.add_trials(finished)
        self.experiment, self._open = experiment, dict[int, Any]()

    @property
    def asked(self) -> int:
        """How many trials there are; the number of the next."""
        return len(self.study.get_trials(deepcopy=False))

    def ask(self, generation: int) -> FrozenTrial:
        """The next trial, with all its values drawn."""
        with quiet():
            self.study.sampler = samplers.sampler(self.experiment, self.asked)
            trial = self.study.ask()
            drawn = draw(trial, self.experiment)
            trial.set_user_attr(OURS, {"generation": generation, "changes": drawn.changes})
        self._open[trial.number] = trial
        return self.frozen(trial.number)

    def take_up(self, stored: FrozenTrial) -> None:
        """A trial that was asked before, as it was then: running, with its values, and nothing that it did."""
        import optuna

        begun = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING, params=stored.params, distributions=stored.distributions,
            user_attrs=stored.user_attrs, system_attrs=_as_asked(stored),
        )  # fmt: skip
        with quiet():
            number = self.asked
            self.study.sampler = samplers.sampler(self.experiment, number)
            self.study.add_trial(begun)
            self._open[number] = optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)

    def settle(self, number: int, stored: FrozenTrial) -> None:
        """It ended in an earlier session, and is told as it ended."""
        storage, key = self.study._storage, self._open[number]._trial_id
        for step, value in stored.intermediate_values.items():
            storage.set_trial_intermediate_value(key, step, value)
        for name, attribute in stored.system_attrs.items():
            storage.set_trial_system_attr(key, name, attribute)
        storage.set_trial_state_values(key, stored.state, stored.values)

    def report(self, number: int, epoch: int, value: float) -> None:
        """What the trial is worth at a rung."""
        self._open[number].report(value, epoch)

    def pruned(self, number: int) -> bool:
        """The pruner's verdict on what was reported."""
        with quiet():
            return bool(self._open[number].should_prune())

    def tell(self, number: int, state: str, values: Sequence[float] | None) -> FrozenTrial:
        """The trial is over: COMPLETE with its values, PRUNED or FAIL without."""
        import optuna

        with quiet():
            self.study.tell(self._open[number], values, state=optuna.trial.TrialState[state])
        return self.frozen(number)

    def frozen(self, number: int) -> FrozenTrial:
        """The trial as it stands."""
        return self.study.get_trials(deepcopy=False)[number]


def _as_asked(stored: FrozenTrial) -> dict[str, Any]:
    """Without what a pruner noted at a rung."""
    return {name: value for name, value in stored.system_attrs.items() if not name.startswith("completed_rung_")}


def drawn(stored: FrozenTrial, experiment: Experiment) -> Drawn:
    """What a stored trial means."""
    import optuna

    return draw(optuna.trial.FixedTrial(stored.params, number=stored.number), experiment)


@contextmanager
def quiet() -> Iterator[Any]:
    """Optuna without its lines on standard error, and without its notes on what is experimental."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield optuna
