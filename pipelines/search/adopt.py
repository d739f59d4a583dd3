"""The winner of a study, written into params.yaml as a person would: the values that were searched, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.weights import write_atomically
from pipelines.search.book import BLOCKS, FREE, StudyError
from pipelines.search.records import StudyRecord, TrialRecord, load_study
from pipelines.spec import Experiment, flat, load
from pipelines.spec.space import setting
from pipelines.spec.yaml_file import edit, read_text


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
    study, now = load_study(folder), load(params)
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
    text = edit(read_text(params), {tuple(path.split(".")): _value(wanted, path) for path in paths}, gone)
    write_atomically(params, text.encode())
    changed = [key for key in after if before.get(key) != after[key] and key.partition(".")[0] in BLOCKS]
    return Adopted(trial, {key: (before.get(key), after[key]) for key in changed})


def chosen(study: StudyRecord, number: int | None) -> TrialRecord:
    """The trial of a number, or the best."""
    if number is None and study.best is None:
        front = ", ".join(map(str, study.front))
        found = f"its best are {front}, each in its own way" if front else "none of its trials completed"
        raise StudyError(f"study {study.name} has no single best trial ({found}); name one: --trial N")
    try:
        return study.trial(study.best if number is None else number)  # type: ignore[arg-type]
    except KeyError:
        raise StudyError(f"--trial must be a trial of study {study.name}, 0 to {len(study.trials) - 1}, got {number}") from None


def differences(study: StudyRecord, now: Experiment) -> list[str]:
    """Where another spec differs from the study's, besides what it searched: what a trial's value also rests on."""
    searched = {setting(path) for path in study.spec.search.space}
    searched |= {"seed"} if study.spec.search.trial_seeds == "own" else set()
    kept, found = flat(study.spec), flat(now)
    keys = [key for key in dict.fromkeys([*kept, *found]) if key.partition(".")[0] in BLOCKS]
    return [
        f"{key} is {found.get(key, 'absent')}, was {kept.get(key, 'absent')}"
        for key in keys
        if key not in FREE and key not in searched and kept.get(key) != found.get(key) and not _below(key, searched)
    ]


def _below(key: str, searched: set[str]) -> bool:
    """An option of a kind that was searched: train.optimizer.momentum where train.optimizer.name was."""
    kinds = {path.removesuffix("name") for path in searched if path.endswith(".name")}
    return any(key.startswith(kind) for kind in kinds)


def _value(experiment: Experiment, path: str) -> Any:
    """What stands at a dotted path of the resolved spec, in plain values."""
    value: Any = experiment.model_dump(mode="json")
    for part in path.split("."):
        value = value[part]
    return value
