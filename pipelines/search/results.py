"""What is made of a study that was found: its table and exports, its winner in params.yaml, and how much each key matters."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import zip_longest
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.weights import write_atomically
from pipelines.search.records import StudyRecord, TrialRecord, load_study
from pipelines.search.trials import BLOCKS, FREE, StudyError, quiet
from pipelines.spec import Experiment, dump, flat, load
from pipelines.spec.file import edit, read_text
from pipelines.spec.space import setting
from pipelines.stages.files import csv_text

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

Row = dict[str, Any]
FEWEST = 8  # trials: of fewer, a forest says nothing of what matters
TREES, DEPTH, SEED = 32, 6, 0  # 64 leaves a tree: without the limit 700 trials take 23 s, with it 1 to 2


# -- table and exports --


def rows(study: StudyRecord) -> Iterator[Row]:
    """One a trial, by number; all have the same keys, and None where a trial has no such value."""
    own = ["seed"] if study.spec.search.trial_seeds == "own" else []
    for one in study.trials:
        row: Row = {"trial": one.number, "state": one.state.lower()}
        row |= dict(zip_longest(study.metrics, one.values))
        if study.spec.search.seeds > 1:
            row |= dict(zip_longest([f"{metric} sd" for metric in study.metrics], one.spread))
        row |= {path: one.changes.get(path) for path in [*study.spec.search.space, *own]}
        yield row | {name: getattr(one, name) for name in ("best_epoch", "epochs", "steps", "weights", "reason")}


def text(study: StudyRecord) -> str:
    """CSV: floats to the last bit, lists as JSON, empty where there is no value."""
    table = list(rows(study))
    cells = ([json.dumps(v, default=list) if isinstance(v, list | tuple | dict) else v for v in row.values()] for row in table)
    return csv_text([*table[0]] if table else ["trial", "state"], cells)


def ranked(study: StudyRecord) -> list[TrialRecord]:
    """Of several metrics, the front first.

    Complete trials from the best on by the first metric, the pruned, failed, running.
    """
    sign = 1 if study.directions[0] == "minimize" else -1
    order = {"COMPLETE": 0, "PRUNED": 1, "FAIL": 2, "RUNNING": 3}

    def place(trial: TrialRecord) -> tuple[Any, ...]:
        behind = len(study.metrics) > 1 and trial.number not in study.front
        return order[trial.state], behind, sign * trial.values[0] if trial.values else 0.0, trial.number

    return sorted(study.trials, key=place)


def export(study: StudyRecord, form: str, number: int | None = None) -> str:
    """`form`: csv, json, or spec (of the trial of this number, or of the best).

    Raises StudyError if there is no such trial.
    """
    if form == "spec":
        return dump(study.spec.drawn(chosen(study, number).changes))
    if form == "csv":
        return text(study)
    whole: dict[str, Any] = {"study": study.name, "metrics": study.metrics, "directions": study.directions}
    whole |= {"best": study.best, "front": study.front, "trials": list(rows(study))}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


# -- the winner --


@dataclass(frozen=True)
class Adopted:
    """What was written: dotted path -> (was, is), and the trial that it comes from."""

    trial: TrialRecord
    changes: dict[str, tuple[Any, Any]]


def adopt(folder: Path, params: Path, number: int | None = None) -> Adopted:
    """Write the best trial of a study, or the one of this number, into the spec file.

    Raises StudyError if there is no such trial, or none that is best; if it did not complete; and if the file differs from
    the study's spec elsewhere, since it would then not be that trial's experiment.
    """
    study, now = load_study(folder, histories=False), load(params)
    trial = chosen(study, number)
    if trial.state != "COMPLETE":
        raise StudyError(
            f"trial {trial.number} of study {study.name} did not complete ({trial.reason}); choose another: --trial N"
        )
    differing = differences(study, now)
    if differing:
        raise StudyError(
            f"{params} must agree with the spec of study {study.name} but for what was searched, found other values: "
            f"{'; '.join(differing[:5])}; put them back, or search again under another --name"
        )
    wanted = now.drawn(trial.changes)
    before, after = flat(now), flat(wanted)
    paths = {setting(path) for path in trial.changes}
    gone = [tuple(key.split(".")) for key in before if key.startswith("train.") and key not in after]
    whole: Any = wanted.model_dump(mode="json")
    places: list[tuple[str | int, ...]] = [tuple(path.split(".")) for path in paths]
    values = {place: reduce(getitem, place, whole) for place in places}
    text = edit(read_text(params), values, gone)
    write_atomically(params, text.encode())
    changed = [key for key in after if before.get(key) != after[key] and key.partition(".")[0] in BLOCKS]
    return Adopted(trial, {key: (before.get(key), after[key]) for key in changed})


def chosen(study: StudyRecord, number: int | None) -> TrialRecord:
    """The trial of a number, or the best."""
    if number is None and study.best is None:
        front = ", ".join(map(str, study.front))
        found = f"its best are {front}, each in its own way" if front else "none of its trials completed"
        raise StudyError(f"study {study.name} has no single best trial ({found}); name one: --trial N")
    number = study.best or 0 if number is None else number
    if not 0 <= number < len(study.trials):
        raise StudyError(f"--trial must be a trial of study {study.name}, 0 to {len(study.trials) - 1}, got {number}")
    return study.trial(number)


def differences(study: StudyRecord, now: Experiment) -> list[str]:
    """Where another spec differs from the study's, besides what it searched: what a trial's value also rests on."""
    searched = {setting(path) for path in study.spec.search.space}
    searched |= {"seed"} if study.spec.search.trial_seeds == "own" else set()
    kinds = tuple(path.removesuffix("name") for path in searched if path.endswith(".name"))  # whose options were drawn with them
    kept, found = flat(study.spec), flat(now)
    keys = [key for key in dict.fromkeys([*kept, *found]) if key.partition(".")[0] in BLOCKS]
    return [
        f"{key} is {found.get(key, 'absent')}, was {kept.get(key, 'absent')}"
        for key in keys
        if key not in FREE and key not in searched and kept.get(key) != found.get(key) and not key.startswith(kinds)
    ]


# -- how much each key matters --


def importances(study: Study) -> dict[str, float]:
    """Name drawn ("model.dropout", "regularization.l1 or") -> the share of the variance of the first metric that it accounts for.

    The greatest first; they add up to 1. {} with fewer than 8 completed trials, or where nothing differs.

    Functional ANOVA (Hutter, Hoos & Leyton-Brown 2014) as Optuna has it. It needs every key in every trial: one that a condition
    left out stands there with the middle of its drawn values, so that the absence itself counts for the key that decided it
    ("regularization.l1 or"), which is drawn always. A key that is drawn by its logarithm goes in as that.
    """
    from optuna import create_study, importance
    from optuna.trial import TrialState, create_trial

    done = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if math.isfinite(t.values[0])]
    drawn: dict[str, Any] = {}  # with more than one value: what stands for it where a trial lacks it
    kinds = {name: kind for trial in done for name, kind in sorted(trial.distributions.items())}
    for name in sorted(kinds):
        values = [trial.params[name] for trial in done if name in trial.params]
        if len(set(map(repr, values))) > 1:
            drawn[name] = _middle(values)
    if len(done) < FEWEST or len({t.values[0] for t in done}) < 2 or not drawn:
        return {}
    if len(drawn) == 1:
        return dict.fromkeys(drawn, 1.0)
    with quiet():
        whole = create_study()
        for trial in done:
            params, spaces = {}, {}
            for name, middle in drawn.items():
                params[name], spaces[name] = _evenly(trial.params.get(name, middle), kinds[name])
            whole.add_trial(create_trial(params=params, distributions=spaces, value=trial.values[0]))
        evaluator = importance.FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=SEED)
        found = importance.get_param_importances(whole, evaluator=evaluator)
    shares = {name: round(float(found[name]), 6) for name in drawn}  # a library's last bits are no finding
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0]))) if any(shares.values()) else {}


def _evenly(value: Any, kind: BaseDistribution) -> tuple[Any, BaseDistribution]:
    """A value and its range as drawn: Optuna weighs a range evenly, which would hide a learning rate."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if isinstance(kind, FloatDistribution | IntDistribution) and kind.log:
        return math.log(value), FloatDistribution(math.log(kind.low), math.log(kind.high))
    return value, kind


def _middle(values: Sequence[Any]) -> Any:
    """The middle one of numbers, else the most frequent; one that was drawn in any case."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return sorted(values)[len(values) // 2]
    return Counter(values).most_common(1)[0][0]
