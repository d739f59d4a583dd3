"""A study's trials: who draws them, where they are kept (StudyStorage), compared and pruned (InMemoryStudy).

A sampler is made anew for each trial, seeded by (seed, trial number): a study that is continued draws what it would have drawn.
A trial gets into the storage in one write, with all its values; one without OURS, which says that, is of another program.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from math import inf, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.search.storage import open_storage, uninterrupted
from pipelines.spec import Choices, Experiment, Range, flat
from pipelines.spec.space import holds, ordered, takes_whole_numbers

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import BaseTrial, FrozenTrial

OURS = "deltarule"  # the user attribute, of a study and of a trial, that holds what Optuna has no place for
# What decides which trials a study makes and what they are worth. Not: how many, how fast, on what.
DECIDES = ("metric", "direction", "sampler", "pruner", "rung", "generation", "seeds", "trial_seeds", "seed", "space")
BLOCKS = ("seed", "data", "model", "regularization", "train")
FREE = ("train.devices", "train.threads")
RANGE = "range"  # what is drawn for "PATH or" where a value of the range is to be drawn next


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


def identity(spec: Experiment, data: Mapping[str, str]) -> dict[str, Any]:
    """Dotted key -> value of all that a study's trials follow from; `data` holds the hashes of training and validation rows.

    Not the spec's own value of a key that every trial draws: a winner may be adopted, and the study go on.
    """
    whole = flat(spec)
    space = spec.search.space
    drawn = {path for path, values in space.items() if values.when is None and path in whole}
    drawn |= {"seed"} if spec.search.trial_seeds == "own" else set()
    free = {*FREE, *drawn} - {path for path in space if path.endswith(".name")}
    blocks = {key: value for key, value in whole.items() if key.partition(".")[0] in BLOCKS and key not in free}
    search = {key: value for key, value in whole.items() if key.split(".")[:2][-1] in DECIDES and key.startswith("search.")}
    if spec.search.trial_seeds == "same":  # studies that are older than this key go on
        del search["search.trial_seeds"]
    return {**blocks, **search, **{f"rows of {part}": digest for part, digest in data.items()}}


def _check_same(name: str, kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises StudyError with all that differs."""
    # As they come back from a storage.
    wanted, usual = (json.loads(json.dumps(values)) for values in (wanted, flat(Experiment())))
    was, now = ({key: json.dumps(v, ensure_ascii=False) for key, v in values.items()} for values in (kept, wanted))
    lines = [
        f"  {key}: was {was.get(key, 'absent')}, is {now.get(key, 'absent')}"
        for key in {**kept, **wanted}
        if kept.get(key, usual.get(key)) != wanted.get(key)  # keys that are newer than the study had their default
    ]
    if lines:
        raise StudyError(
            "\n".join([f"study {name!r} was begun with another spec; change that back, or choose another --name:", *lines])
        )


# -- what is drawn --


def draw(trial: BaseTrial, spec: Experiment) -> dict[str, Any]:
    """Dotted path -> value to lay over the spec, for every path whose `when` holds, drawn in a fixed order.

    And, where the study wants that, a seed of the trial's own. The trial's params are what Optuna knows of it.
    """
    space = spec.search.space
    changes: dict[str, Any] = {}
    for path in ordered(space):
        if holds(space[path].when, changes):
            changes[path] = _value(trial, path, space[path])
    found = {path: changes[path] for path in space if path in changes}
    if spec.search.trial_seeds == "own":  # 31 bits, so that those that follow (search.seeds) are seeds too
        found["seed"] = _bits(f"trial {spec.search.seed} {trial.number}") >> 1
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


def grid(spec: Experiment) -> dict[str, list[Any]]:
    """Every value of each path, for the grid sampler; the spec has refused what has no list of values."""
    return {path: _values(path, values) for path, values in spec.search.space.items()}


def _values(path: str, values: Range | Choices) -> list[Any]:
    """The choices; or low, low + step, ..., high."""
    if isinstance(values, Choices):
        return list(map(_key, values.choices))
    low, step = (Decimal(str(number)) for number in (values.low, values.step or 1))
    kind = int if values.int or takes_whole_numbers(path) else float
    return [kind(low + i * step) for i in range(_count(values))]


def _count(values: Range) -> int:
    """Of its steps, in decimals as they are written."""
    low, high, step = (Decimal(str(number)) for number in (values.low, values.high, values.step or 1))
    return int((high - low) / step) + 1


def points(spec: Experiment) -> float:
    """How many points a space has at most: inf where a range has no step, or each trial a seed of its own."""
    own = spec.search.trial_seeds == "own"
    return inf if own else prod(_points(path, values) for path, values in spec.search.space.items())


def _points(path: str, values: Range | Choices) -> float:
    if isinstance(values, Choices):
        return len(values.choices)
    stepped = values.step or values.int or takes_whole_numbers(path)
    return _count(values) + len(values.others) if stepped else inf


# -- samplers and pruners --

REDUCTION = 3  # of the trials that go on, a third go on at each rung (Jamieson & Talwalkar 2016; Li et al. 2018)


def sampler(spec: Experiment, number: int) -> BaseSampler:
    """The sampler that draws trial `number`.

    tpe: Bergstra et al. (2011), multivariate (Falkner et al. 2018); `group` keeps conditional paths in the joint model. qmc:
    scrambled Sobol points (Bergstra & Bengio 2012 compare them with random ones). gp: needs torch and about 0.3 s a trial. grid:
    point `number` of the grid, with which the study ends.
    """
    from optuna import samplers

    class Sobol(samplers.QMCSampler):
        def _find_sample_id(self, *_: Any) -> int:
            """Optuna counts in the study's storage; the trial's own number needs no count. There is no public way."""
            return number

    class Grid(samplers.GridSampler):
        def after_trial(self, *_: Any) -> None:
            """Optuna's own ends `study.optimize`, which does not run here."""

    name, seed = spec.search.sampler, spec.search.seed
    own = _bits(f"{seed} {number}")
    if name == "tpe":
        return samplers.TPESampler(seed=own, multivariate=True, group=True, constant_liar=True)
    if name == "grid":
        return Grid(grid(spec), seed=seed)
    if name == "qmc":
        return Sobol(scramble=True, seed=seed, independent_sampler=samplers.RandomSampler(seed=own))
    if name == "gp":
        return samplers.GPSampler(seed=own, deterministic_objective=True)
    return samplers.RandomSampler(seed=own)


def pruner(spec: Experiment) -> BasePruner:
    """What judges a trial at its rungs."""
    from optuna import pruners

    name, epochs, first = spec.search.pruner, spec.train.epochs, rung_epochs(spec)
    if name == "halving":
        return halving(first)
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=first, max_resource=epochs, reduction_factor=REDUCTION)
    return pruners.MedianPruner() if name == "median" else pruners.NopPruner()


def halving(first: int) -> BasePruner:
    """Successive halving: at `first`, 3·first, 9·first, ... epochs, the best third of all trials that came there go on.

    Optuna's own, made for workers that do not wait for each other, judges a trial by those before it, and so keeps the first
    ones whatever they are worth. Here all of a generation have reported before one is judged.
    """
    from optuna.pruners import BasePruner
    from optuna.study import Study, StudyDirection

    class Halving(BasePruner):
        def prune(self, study: Study, trial: FrozenTrial) -> bool:
            step = trial.last_step
            if step is None or step % first or REDUCTION**40 % (step // first):  # what divides it is a power of three
                return False
            sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
            reports = [one.intermediate_values for one in study.get_trials(deepcopy=False)]
            there = [one[step] for one in reports if step in one]
            better = sum(sign * value < sign * trial.intermediate_values[step] for value in there)
            return better >= max(1, len(there) // REDUCTION)

    return Halving()


def rung_epochs(spec: Experiment) -> int:
    """Epochs between two looks: auto is a tenth of all, so that a look costs little beside what it can save."""
    rung = spec.search.rung
    return max(1, spec.train.epochs // 10) if rung == "auto" else rung


# -- an Optuna study --


def drawn(stored: FrozenTrial, spec: Experiment) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a stored trial drew, and what it means: name -> value; dotted path -> value to lay over the spec.

    Raises StudyError for draws of another program that are not whole, or not of this space.
    """
    import optuna

    fixed = optuna.trial.FixedTrial(stored.params, number=stored.number)
    try:
        changes = draw(fixed, spec)
    except ValueError:
        raise StudyError(f"trial {stored.number} was given values that are not whole, or not of search.space") from None
    return fixed.params, changes


class OptunaStudy:
    """A study in one of Optuna's storages, whose trials are written after those of another."""

    def __init__(self, storage: BaseStorage, name: str, spec: Experiment, check: Callable[[], None]) -> None:
        """Opens the study, or makes it. `check`, before each write: see `locked`."""
        check()
        self.storage, self.check = storage, check
        with quiet() as optuna:
            directions = list(spec.search.directions)
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

    def __init__(self, folder: Path, spec: Experiment, name: str, known: Mapping[str, Any], check: Callable[[], None]) -> None:
        """Raises StudyError if the study is there and is another one."""
        super().__init__(open_storage(folder, spec.search.storage), name, spec, check)
        kept = self.study.user_attrs.get(OURS)
        if kept is not None:
            _check_same(name, kept["identity"], known)
        elif self.trials():
            raise StudyError(f"study {name!r} holds trials that deltarule did not make; choose another --name")
        else:
            self.study.set_user_attr(OURS, {"identity": dict(known)})

    @property
    def width(self) -> int | None:
        """Networks in a stack, once that is fixed for the life of the study."""
        found: int | None = self.study.user_attrs[OURS].get("width")
        return found

    @uninterrupted()
    def fix_width(self, width: int) -> None:
        """Note it."""
        self.check()
        self.study.set_user_attr(OURS, {**self.study.user_attrs[OURS], "width": width})

    def count_finished(self) -> int:
        """How many trials are over."""
        return sum(trial.state.is_finished() for trial in self.trials())


class InMemoryStudy(OptunaStudy):
    """Where trials are drawn, compared and pruned: what samplers and pruners see in a study that was never interrupted.

    It holds the trials of earlier generations and of the one in hand, and nothing that other processes did meanwhile. All have
    one name: hyperband deals its brackets by it, and a name must change no trial.
    """

    def __init__(self, spec: Experiment) -> None:
        from optuna.storages import InMemoryStorage

        super().__init__(InMemoryStorage(), "mirror", spec, lambda: None)
        self.spec = spec

    def begin_generation(self, earlier: Sequence[FrozenTrial]) -> None:
        """`earlier`: all trials of the generations before."""
        self.study.add_trials(earlier[len(self.trials()) :])
        with quiet():  # Optuna's hyperband deals out no brackets before it has pruned once, and every generation draws alike
            self.study.pruner = pruner(self.spec)

    def ask(self, stored: FrozenTrial | None) -> FrozenTrial:
        """The next trial, with all its values drawn.

        `stored`: one that waits in Optuna's queue, or was drawn in part when its process was killed. Its draws are played again,
        and what is fixed or stored stands: a stored value that was simply returned would leave the sampler's generator elsewhere.
        """
        number = len(self.trials())
        with quiet():
            if stored and (fixed := stored.system_attrs.get("fixed_params")):
                self.study.enqueue_trial(fixed)
            self.study.sampler = sampler(self.spec, number)
            trial = self.study.ask()
            if stored is None:
                changes = draw(trial, self.spec)
            else:
                changes = {}
                with suppress(ValueError):  # values that search.space does not allow: the driver fails the trial
                    draw(trial, self.spec)
                    self.write(stored)
                    changes = drawn(self.trial(number), self.spec)[1]
            trial.set_user_attr(OURS, {"generation": number // self.spec.search.generation, "changes": changes})
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
