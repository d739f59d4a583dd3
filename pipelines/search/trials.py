"""A study's trials: where they are kept (StudyStorage), and where they are drawn, compared and pruned (InMemoryStudy).

A trial gets into the storage in one write, with all its values; a trial without OURS, which says that, was begun by another
program.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.search import sampling
from pipelines.search.sampling import draw
from pipelines.search.storage import open_storage, uninterrupted
from pipelines.spec import Experiment, flat

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

OURS = "deltarule"  # the user attribute, of a study and of a trial, that holds what Optuna has no place for
# What decides which trials a study makes and what they are worth. Not: how many, how fast, on what.
DECIDES = ("metric", "direction", "sampler", "pruner", "rung", "generation", "seeds", "trial_seeds", "seed", "space")
BLOCKS = ("seed", "data", "model", "regularization", "train")
FREE = ("train.devices", "train.threads")


class StudyError(ValueError):
    """A study that cannot go on as asked; the message says what to do."""

    exit_code = 2


class NothingFound(StudyError):
    """A study without a trial that completed."""

    exit_code = 1


@contextmanager
def quiet() -> Iterator[Any]:
    """Optuna without its lines on standard error, and without its notes on what is experimental."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield optuna


# -- what a study is --


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
    # As they come back from a storage.
    wanted, usual = (json.loads(json.dumps(values)) for values in (wanted, flat(Experiment())))
    lines = [
        f"  {key}: was {_shown(kept, key)}, is {_shown(wanted, key)}"
        for key in dict.fromkeys([*kept, *wanted])
        if kept.get(key, usual.get(key)) != wanted.get(key)  # keys that are newer than the study had their default
    ]
    if lines:
        raise StudyError(
            "\n".join([f"study {name!r} was begun with another spec; change that back, or choose another --name:", *lines])
        )


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else "absent"


# -- an Optuna study --


def drawn(stored: FrozenTrial, experiment: Experiment) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a stored trial drew, and what it means: name -> value; dotted path -> value to lay over the spec.

    Raises StudyError for draws of another program that are not whole, or not of this space.
    """
    import optuna

    fixed = optuna.trial.FixedTrial(stored.params, number=stored.number)
    try:
        changes = draw(fixed, experiment)
    except ValueError:
        raise StudyError(f"trial {stored.number} was given values that are not whole, or not of search.space") from None
    return fixed.params, changes


class OptunaStudy:
    """A study in one of Optuna's storages, whose trials are written after those of another."""

    def __init__(self, storage: BaseStorage, name: str, experiment: Experiment, check: Callable[[], None]) -> None:
        """Opens the study, or makes it. `check`, before each write: see `locked`."""
        check()
        self.storage, self.check = storage, check
        with quiet() as optuna:
            directions = list(experiment.search.directions)
            self.study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True, directions=directions)
        self.id = storage.get_study_id_from_name(name)
        self.over = {trial.number for trial in self.trials() if trial.state.is_finished()}  # before this session

    @uninterrupted()
    def trials(self) -> list[FrozenTrial]:
        """All, by number, as they stand now."""
        return self.study.get_trials(deepcopy=False)

    def trial(self, number: int) -> FrozenTrial:
        """The trial as it stands."""
        return self.storage.get_trial(self._key(number))

    @uninterrupted()
    def begin(self, asked: FrozenTrial) -> None:
        """The next trial, in one write: as `asked` was when it had been drawn."""
        import optuna

        self.check()
        noted = {name: value for name, value in asked.system_attrs.items() if not name.startswith("completed_rung_")}
        trial = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=asked.params,
            distributions=asked.distributions,
            user_attrs=asked.user_attrs,
            system_attrs=noted,
        )
        key = self.storage.create_new_trial(self.id, trial)
        if (number := self.storage.get_trial_number_from_id(key)) != asked.number:
            raise optuna.exceptions.UpdateFinishedTrialError(f"trial {asked.number} was begun as {number}")

    @uninterrupted()
    def write(self, trial: FrozenTrial) -> bool:
        """What the trial of this number lacks here. May be repeated; False where an earlier session ended it."""
        import optuna

        self.check()
        key = self._key(trial.number)
        here = self.storage.get_trial(key)
        if here.state.is_finished():
            if trial.number not in self.over:
                raise optuna.exceptions.UpdateFinishedTrialError(f"trial {trial.number} was ended by it")
            return False
        for name, kind in trial.distributions.items():
            if here.params.get(name, ...) != trial.params[name]:
                self.storage.set_trial_param(key, name, kind.to_internal_repr(trial.params[name]), kind)
        for step, value in trial.intermediate_values.items():
            if step not in here.intermediate_values:
                self.storage.set_trial_intermediate_value(key, step, value)
        for name, value in trial.system_attrs.items():
            if here.system_attrs.get(name, ...) != value:
                self.storage.set_trial_system_attr(key, name, value)
        for name, value in trial.user_attrs.items():
            if here.user_attrs.get(name, ...) != value:
                self.storage.set_trial_user_attr(key, name, value)
        if trial.state.is_finished() or here.state.name == "WAITING":
            self.storage.set_trial_state_values(key, trial.state, trial.values)
        return True

    def _key(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.id, number)


class StudyStorage(OptunaStudy):
    """One study in the storage that its spec names, the only home of its trials."""

    def __init__(
        self, folder: Path, experiment: Experiment, name: str, known: Mapping[str, Any], check: Callable[[], None]
    ) -> None:
        """Raises StudyError if the study is there and is another one."""
        super().__init__(open_storage(folder, experiment.search.storage), name, experiment, check)
        kept = self.study.user_attrs.get(OURS)
        if kept is not None:
            _check_same(name, kept["identity"], known)
        elif self.trials():
            raise StudyError(f"study {name!r} holds trials that deltarule did not make; choose another --name")
        else:
            self.study.set_user_attr(OURS, {"identity": dict(known)})

    @property
    def settings(self) -> dict[str, Any]:
        """What is fixed for the life of the study: `identity`, `width`."""
        return dict(self.study.user_attrs[OURS])

    @uninterrupted()
    def fix(self, **settings: Any) -> None:
        """Note what is fixed for the life of the study."""
        self.check()
        self.study.set_user_attr(OURS, {**self.settings, **settings})

    def count_finished(self) -> int:
        """How many trials are over."""
        return sum(trial.state.is_finished() for trial in self.trials())


class InMemoryStudy(OptunaStudy):
    """Where trials are drawn, compared and pruned: what a study that was never interrupted would show samplers and pruners.

    It holds the trials of earlier generations and of the one in hand, and nothing that other processes did meanwhile. All have
    one name: hyperband deals its brackets by it, and a name must change no trial.
    """

    def __init__(self, experiment: Experiment) -> None:
        from optuna.storages import InMemoryStorage

        super().__init__(InMemoryStorage(), "mirror", experiment, lambda: None)
        self.experiment = experiment

    def begin_generation(self, earlier: Sequence[FrozenTrial]) -> None:
        """`earlier`: all trials of the generations before."""
        self.study.add_trials(earlier[len(self.trials()) :])
        with quiet():  # Optuna's hyperband deals out no brackets before it has pruned once, and every generation draws alike
            self.study.pruner = sampling.pruner(self.experiment)

    def ask(self, stored: FrozenTrial | None) -> FrozenTrial:
        """The next trial, with all its values drawn.

        `stored`: one that waits in Optuna's queue, or was drawn in part when its process was killed. Its draws are played again,
        and what is fixed or stored stands: a stored value that was simply returned would leave the sampler's generator elsewhere.
        """
        number = len(self.trials())
        with quiet():
            if stored and (fixed := stored.system_attrs.get("fixed_params")):
                self.study.enqueue_trial(fixed)
            self.study.sampler = sampling.sampler(self.experiment, number)
            trial = self.study.ask()
            if stored is None:
                changes = draw(trial, self.experiment)
            else:
                changes = {}
                with suppress(ValueError):  # values that search.space does not allow: the driver fails the trial
                    draw(trial, self.experiment)
                    self.write(stored)
                    changes = drawn(self.trial(number), self.experiment)[1]
            trial.set_user_attr(OURS, {"generation": number // self.experiment.search.generation, "changes": changes})
        return self.trial(number)

    def report(self, number: int, epoch: int, value: float) -> FrozenTrial:
        """What the trial is worth at a rung."""
        self.storage.set_trial_intermediate_value(self._key(number), epoch, value)
        return self.trial(number)

    def pruned(self, number: int) -> bool:
        """The pruner's verdict on what was reported."""
        with quiet():
            return bool(self.study.pruner.prune(self.study, self.trial(number)))

    def tell(self, number: int, state: str, values: Sequence[float] | None, details: Mapping[str, Any]) -> FrozenTrial:
        """The trial is over: COMPLETE with its values, PRUNED or FAIL without. `details`: what Optuna has no place for."""
        import optuna

        noted = self.trial(number).user_attrs.get(OURS, {})
        self.storage.set_trial_user_attr(self._key(number), OURS, {**noted, **details})
        with quiet():
            self.study.tell(number, values, state=optuna.trial.TrialState[state])
        return self.trial(number)
