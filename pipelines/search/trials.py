"""A study's trials: where they are kept (StudyStorage), and where they are drawn, compared and pruned (InMemoryStudy).

Samplers and pruners look at a study in memory, which a study that goes on fills from the storage: it holds the trials of earlier
generations and of the one in hand, and nothing that other processes did meanwhile. A trial gets into the storage in one write,
with all its values, so none is ever half drawn.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.search import sampling
from pipelines.search.sampling import Drawn, draw
from pipelines.search.storage import open_storage, uninterrupted
from pipelines.spec import Experiment, flat

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

OURS = "deltarule"  # the user attribute, of a study and of a trial, that holds what Optuna has no place for
# What decides which trials a study makes and what they are worth. Not: how many, how fast, on what.
DECIDES = ("metric", "direction", "sampler", "pruner", "rung", "generation", "seeds", "trial_seeds", "seed", "space")
BLOCKS = ("seed", "data", "model", "regularization", "train")
FREE = ("train.devices", "train.threads")


class StudyError(ValueError):
    """A study that cannot go on as asked (exit code 2), or that found nothing (1); the message says what to do."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def quiet() -> Iterator[Any]:
    """Optuna without its lines on standard error, and without its notes on what is experimental."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield optuna


# -- what a study is -------------------------------------------------------------------------------------------------------


def identity(experiment: Experiment, data: Mapping[str, str]) -> dict[str, Any]:
    """Dotted key -> value of all that a study's trials follow from; `data` holds the hashes of training and validation rows.

    Not the spec's own value of a key that every trial draws: a winner may be adopted, and the study go on.
    """
    whole = flat(experiment)
    space = experiment.search.space
    drawn = {path for path, values in space.items() if values.when is None and path in whole}
    drawn |= {"seed"} if experiment.search.trial_seeds == "own" else set()
    free = {*FREE, *drawn} - {path for path in space if path.endswith(".name")}
    spec = {key: value for key, value in whole.items() if key.partition(".")[0] in BLOCKS and key not in free}
    search = {key: value for key, value in whole.items() if key.split(".")[:2][-1] in DECIDES and key.startswith("search.")}
    if experiment.search.trial_seeds == "same":  # studies that are older than this key go on
        del search["search.trial_seeds"]
    return {**spec, **search, **{f"rows of {part}": digest for part, digest in data.items()}}


def _check_same(name: str, kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises StudyError with all that differs."""
    wanted = json.loads(json.dumps(wanted))  # as it comes back from a storage
    lines = [
        f"  {key}: was {_shown(kept, key)}, is {_shown(wanted, key)}"
        for key in dict.fromkeys([*kept, *wanted])
        if kept.get(key) != wanted.get(key)
    ]
    if lines:
        raise StudyError(
            "\n".join([f"study {name!r} was begun with another spec; change that back, or choose another --name:", *lines])
        )


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else "absent"


# -- where trials are kept -------------------------------------------------------------------------------------------------


class StudyStorage:
    """One study in Optuna's storage, the only home of its trials. Every write may be repeated, and none is interrupted."""

    def __init__(self, folder: Path, experiment: Experiment, name: str, known: Mapping[str, Any]) -> None:
        """Opens the study, or makes it. Raises StudyError if it is there and is another one."""
        self.storage = open_storage(folder, experiment.search.storage)
        with quiet() as optuna:
            self.study = optuna.create_study(
                storage=self.storage, study_name=name, load_if_exists=True, directions=list(experiment.search.directions)
            )
        kept = self.study.user_attrs.get(OURS)
        if kept is not None:
            _check_same(name, kept["identity"], known)
        elif self.study.get_trials(deepcopy=False):
            raise StudyError(f"study {name!r} holds trials that deltarule did not make; choose another --name")
        else:
            self.study.set_user_attr(OURS, {"identity": dict(known)})
        self._id = self.storage.get_study_id_from_name(name)

    @property
    def settings(self) -> dict[str, Any]:
        """What is fixed for the life of the study: `identity`, `width`."""
        return dict(self.study.user_attrs[OURS])

    @uninterrupted()
    def fix(self, **settings: Any) -> None:
        """Note what is fixed for the life of the study."""
        self.study.set_user_attr(OURS, {**self.settings, **settings})

    @uninterrupted()
    def erase(self) -> None:
        """Delete the study with all its trials."""
        self.storage.delete_study(self._id)

    @uninterrupted()
    def trials(self) -> list[FrozenTrial]:
        """All, by number, as they stand now."""
        return self.study.get_trials(deepcopy=False)

    def count_finished(self) -> int:
        """How many trials are over."""
        return sum(trial.state.is_finished() for trial in self.trials())

    @uninterrupted()
    def add(self, asked: FrozenTrial) -> None:
        """A trial that was drawn in memory, in one write with all its values."""
        self.study.add_trial(running(asked))

    @uninterrupted()
    def report(self, number: int, epoch: int, value: float) -> None:
        """What the trial is worth at a rung."""
        trial = self.storage.get_trial(self._trial_id(number))
        if not trial.state.is_finished() and epoch not in trial.intermediate_values:
            self.storage.set_trial_intermediate_value(self._trial_id(number), epoch, value)

    @uninterrupted()
    def tell(self, ended: FrozenTrial, details: Mapping[str, Any]) -> bool:
        """The trial is over, as it is over in memory. False where that was known."""
        key = self._trial_id(ended.number)
        trial = self.storage.get_trial(key)
        if trial.state.is_finished():
            return False
        for name, value in ended.system_attrs.items():
            if trial.system_attrs.get(name) != value:
                self.storage.set_trial_system_attr(key, name, value)
        self.storage.set_trial_user_attr(key, OURS, {**trial.user_attrs.get(OURS, {}), **details})
        self.storage.set_trial_state_values(key, ended.state, ended.values)
        return True

    def _trial_id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._id, number)


def running(trial: FrozenTrial) -> FrozenTrial:
    """The trial as it was when it had been drawn: without what it was worth, and what a pruner noted at a rung."""
    import optuna

    noted = {name: value for name, value in trial.system_attrs.items() if not name.startswith("completed_rung_")}
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING, params=trial.params, distributions=trial.distributions,
        user_attrs=trial.user_attrs, system_attrs=noted,
    )  # fmt: skip


def drawn(stored: FrozenTrial, experiment: Experiment) -> Drawn:
    """What a stored trial means."""
    import optuna

    return draw(optuna.trial.FixedTrial(stored.params, number=stored.number), experiment)


# -- where trials are drawn and compared -----------------------------------------------------------------------------------


class InMemoryStudy:
    """What samplers and pruners see. All have one name: hyperband deals its brackets by it, and a name must change no trial."""

    def __init__(self, experiment: Experiment) -> None:
        from optuna.storages import InMemoryStorage

        self.experiment, self.storage = experiment, InMemoryStorage()
        with quiet() as optuna:
            self.study = optuna.create_study(
                storage=self.storage, study_name="mirror", directions=list(experiment.search.directions),
                sampler=sampling.sampler(experiment, 0),
            )  # fmt: skip
        self._id = self.storage.get_study_id_from_name("mirror")

    def __len__(self) -> int:
        return len(self.study.get_trials(deepcopy=False))

    def begin_generation(self, earlier: Sequence[FrozenTrial]) -> None:
        """`earlier`: all trials of the generations before, of which those that are not here yet are taken in."""
        self.study.add_trials(earlier[len(self) :])
        with quiet():  # Optuna's hyperband deals out no brackets before it has pruned once, and every generation draws alike
            self.study.pruner = sampling.pruner(self.experiment)

    def ask(self, generation: int) -> FrozenTrial:
        """The next trial, with all its values drawn."""
        with quiet():
            self.study.sampler = sampling.sampler(self.experiment, len(self))
            trial = self.study.ask()
            found = draw(trial, self.experiment)
            trial.set_user_attr(OURS, {"generation": generation, "changes": found.changes})
        return self.trial(trial.number)

    def take_up(self, stored: FrozenTrial) -> None:
        """A trial of this generation that an earlier session drew, as it was then."""
        self.study.add_trial(running(stored))

    def settle(self, stored: FrozenTrial) -> None:
        """A trial that was taken up ended in an earlier session: it ends here as it did there."""
        key = self._trial_id(stored.number)
        for step, value in stored.intermediate_values.items():
            self.storage.set_trial_intermediate_value(key, step, value)
        for name, attribute in stored.system_attrs.items():
            self.storage.set_trial_system_attr(key, name, attribute)
        self.storage.set_trial_state_values(key, stored.state, stored.values)

    def report(self, number: int, epoch: int, value: float) -> None:
        """What the trial is worth at a rung."""
        self.storage.set_trial_intermediate_value(self._trial_id(number), epoch, value)

    def pruned(self, number: int) -> bool:
        """The pruner's verdict on what was reported."""
        with quiet():
            return bool(self.study.pruner.prune(self.study, self.trial(number)))

    def tell(self, number: int, state: str, values: Sequence[float] | None) -> FrozenTrial:
        """The trial is over: COMPLETE with its values, PRUNED or FAIL without."""
        import optuna

        with quiet():
            self.study.tell(number, values, state=optuna.trial.TrialState[state])
        return self.trial(number)

    def trial(self, number: int) -> FrozenTrial:
        """The trial as it stands."""
        return self.storage.get_trial(self._trial_id(number))

    def _trial_id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._id, number)
