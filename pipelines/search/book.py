"""The real Optuna study in its storage: opened, checked to be the one that is meant, written to. Every write is idempotent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.search.mirror import OURS, quiet
from pipelines.search.records import TrialRecord
from pipelines.search.storage import StorageError, open_storage, uninterrupted
from pipelines.spec import Experiment, flat

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# What decides which trials a study makes and what they are worth. Not: how many, how fast, on what.
DECIDES = ("metric", "direction", "sampler", "pruner", "rung", "generation", "seeds", "trial_seeds", "seed", "space")
BLOCKS = ("seed", "data", "model", "regularization", "train")
FREE = ("train.devices", "train.threads")


class StudyError(ValueError):
    """A study that cannot go on as asked (exit code 2), or that found nothing (1); the message says what to do."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


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


class Book:
    """One study in a storage."""

    def __init__(self, folder: Path, experiment: Experiment, name: str, known: Mapping[str, Any]) -> None:
        """Opens the study, or makes it. Raises StudyError if it is there and is another one."""
        with quiet() as optuna:
            self.study = optuna.create_study(
                storage=open_storage(folder, experiment.search.storage), study_name=name, load_if_exists=True,
                directions=list(experiment.search.directions),
            )  # fmt: skip
        kept = self.study.user_attrs.get(OURS)
        if kept is None:
            self._write_first(known)
        else:
            check_same(name, kept["identity"], known)
        self.settings: dict[str, Any] = self.study.user_attrs[OURS]
        self._storage, self._key = self.study._storage, self.study._study_id
        self._known: dict[int, FrozenTrial] = {}
        self.over: dict[int, TrialRecord] = {}  # of trials that are over, which no longer change
        self.trials()

    def _write_first(self, known: Mapping[str, Any]) -> None:
        if self.study.get_trials(deepcopy=False):
            raise StudyError(f"study {self.study.study_name!r} holds trials that deltarule did not make; choose another --name")
        self.study.set_user_attr(OURS, {"identity": dict(known)})

    @uninterrupted()
    def keep(self, **settings: Any) -> None:
        """Note what is fixed for the life of the study."""
        self.settings = {**self.settings, **settings}
        self.study.set_user_attr(OURS, self.settings)

    @uninterrupted()
    def erase(self) -> None:
        """The study is gone, with all its trials."""
        self._storage.delete_study(self._key)

    @uninterrupted()
    def trials(self) -> list[FrozenTrial]:
        """All, by number, as they stand now."""
        found = self.study.get_trials(deepcopy=False)
        self._known = {trial.number: trial for trial in found}
        return found

    @uninterrupted()
    def add(self, asked: Iterable[FrozenTrial]) -> None:
        """Trials that the mirror asked for: each in one write, with all its values."""
        import optuna

        for trial in asked:
            begun = optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING, params=trial.params, distributions=trial.distributions,
                user_attrs=trial.user_attrs, system_attrs=trial.system_attrs,
            )  # fmt: skip
            self._storage.create_new_trial(self._key, template_trial=begun)
        self.trials()

    def finished(self, number: int) -> bool:
        """Whether the trial was over when the generation began."""
        return self._known[number].state.is_finished()

    @uninterrupted()
    def report(self, number: int, epoch: int, value: float) -> None:
        """An intermediate value, for those who watch."""
        trial = self._known[number]
        if not trial.state.is_finished() and epoch not in trial.intermediate_values:
            self._storage.set_trial_intermediate_value(trial._trial_id, epoch, value)

    @uninterrupted()
    def tell(self, told: FrozenTrial, more: Mapping[str, Any]) -> None:
        """The trial is over, as it is over in the mirror."""
        trial = self._known[told.number]
        if trial.state.is_finished():
            return
        for name, value in told.system_attrs.items():
            if trial.system_attrs.get(name) != value:
                self._storage.set_trial_system_attr(trial._trial_id, name, value)
        self._storage.set_trial_user_attr(trial._trial_id, OURS, {**trial.user_attrs.get(OURS, {}), **more})
        self._storage.set_trial_state_values(trial._trial_id, told.state, told.values)


def check_same(name: str, kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises StudyError with all that differs."""
    changed = [key for key in dict.fromkeys([*kept, *wanted]) if json_like(kept.get(key)) != json_like(wanted.get(key))]
    if changed:
        lines = [f"  {key}: was {_shown(kept, key)}, is {_shown(wanted, key)}" for key in changed]
        raise StudyError(
            "\n".join([f"study {name!r} was begun with another spec; change that back, or choose another --name:", *lines])
        )


def json_like(value: Any) -> Any:
    """As it comes back from a storage."""
    return json.loads(json.dumps(value))


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else "absent"


__all__ = ["Book", "StorageError", "StudyError", "check_same", "identity"]
