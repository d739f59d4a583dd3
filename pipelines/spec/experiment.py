"""One experiment, whole: read strictly from params.yaml, overridden, and written out resolved.

Every error names the file and the line, what must hold, what was found and what to do; all the errors of a file are reported
at once.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, overload

from pydantic import Field, ValidationError, ValidationInfo, model_validator

import backends
from backends.spec import Model, Regularization, Seed, Spec, Train, check_penalties
from pipelines.spec import space
from pipelines.spec.blocks import DataSpec, Threshold, Tracking
from pipelines.spec.describe import Node, leaves
from pipelines.spec.explain import Problem, explain
from pipelines.spec.file import SpecError, SpecFile, known_path, put, written_out
from pipelines.spec.study import Search, check_metric
from pipelines.spec.yaml_file import Path_, write

PARTS = {"whole": False}  # the context of validation where wrong keys are left out: what hangs on them cannot be judged


class Experiment(Spec):
    """One experiment, whole."""

    seed: Seed = Field(0, description="of the run: initial weights, order of rows, dropout")
    data: DataSpec = DataSpec()
    model: Model = Model()
    regularization: Regularization = Regularization()
    train: Train = Train()
    thresholds: dict[str, Threshold] = Field(
        {}, description="metric of the validation report -> bounds that hold the pipeline", json_schema_extra={"x-key": "metric"}
    )
    search: Search = Search()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _blocks_agree(self, info: ValidationInfo) -> Experiment:
        penalties = self.regularization
        problems = [
            *_caught("regularization.", check_penalties, "l1", penalties.l1, self.model),
            *_caught("regularization.", check_penalties, "l2", penalties.l2, self.model),
            *_caught("", backends.check_name, self.train.backend),
        ]
        for metric in self.thresholds:
            problems += _caught("thresholds.", check_metric, metric, metric)
        problems += _caught("search.", self.search.check_seeds, self.seed)
        problems += space.refusals(self.search, models_schema())
        if not problems and info.context is not PARTS:
            problems += space.refused_values(self.search.space, self.drawn)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def alone(self) -> Experiment:
        """Without search and thresholds: its overrides cost no check of the space. One trial of a study."""
        return self.model_copy(update={"search": Search(), "thresholds": {}})

    @overload
    def override(self, path: Mapping[str, object]) -> Experiment: ...

    @overload
    def override(self, path: str, value: object) -> Experiment: ...

    def override(self, path: str | Mapping[str, object], value: object = ...) -> Experiment:
        """The experiment with one value changed, override("model.activation", "tanh"), or several, override({...}).

        Raises SpecError. Defaults go with their kind, also if written out: override("train.optimizer.name", "sgd"). What both
        kinds have stays as it was written.
        One layer has a path of its own, counted from 0: override("model.dropout.1", 0.3).
        """
        if isinstance(path, str) and value is ...:
            raise TypeError(f"override needs a value for {path}; None is one, and must be given")
        return self._overridden(path if isinstance(path, Mapping) else {path: value}, ())

    def drawn(self, changes: Mapping[str, object]) -> Experiment:
        """One trial of a study: `alone`, with what was drawn laid over it. Raises SpecError.

        An option that the study varies goes with its kind, where another kind is drawn: adam has no momentum.
        """
        return self.alone()._overridden(changes, self.search.space)

    def _overridden(self, changes: Mapping[str, object], varied: Collection[str]) -> Experiment:
        raw = _plain(self.model_dump(exclude_unset=True))
        for where, what in changes.items():
            put(raw, known_path(where, models_schema()), _plain(what))
        _leave_options(raw, self.train, set(changes), varied)
        experiment, problems = _validate(raw)
        if experiment is None:
            raise SpecError("\n".join(problem.text for problem in problems))
        return experiment


def _caught(prefix: str, check: Callable[..., object], *arguments: object) -> list[str]:
    """What a check complains of; empty if it does not."""
    try:
        check(*arguments)
    except ValueError as error:
        return [f"{prefix}{error}"]
    return []


def load(path: Path | str = "params.yaml", overrides: Sequence[str] = ()) -> Experiment:
    """Read a spec, with overrides of the form "a.b=value" (value in YAML). Raises SpecError with all that is wrong."""
    file = SpecFile.read(Path(path), overrides, models_schema())
    experiment, problems = _validate(file.raw)
    lines = file.report(problems)
    if experiment is None or lines:
        raise SpecError("\n".join(lines))
    return experiment


def _validate(raw: dict[str, Any]) -> tuple[Experiment | None, list[Problem]]:
    """The experiment, or all that is wrong with it."""
    raw, layers = written_out(_name_kinds(raw))
    problems = [Problem(path, text) for path, text in layers]
    try:
        found = Experiment.model_validate(raw)
        return (None, problems) if problems else (found, [])
    except ValidationError as error:
        problems += explain(error, models_schema())
    # What spans several keys is only looked at once each key is right, and what spans blocks once each block is: look at it
    # with the wrong ones left out.
    for _ in ("keys of a block", "blocks"):
        try:
            Experiment.model_validate(_without(raw, [problem.path for problem in problems]), context=PARTS)
        except ValidationError as error:
            problems += [problem for problem in explain(error, models_schema()) if problem not in problems]
    return None, problems


def _name_kinds(raw: dict[str, Any]) -> dict[str, Any]:
    """An optimizer or schedule without a name is one of the default kind."""
    train = raw.get("train")
    if not isinstance(train, dict):
        return raw
    named = dict(train)
    for key, default in (("optimizer", Train().optimizer.name), ("schedule", Train().schedule.name)):
        if isinstance(train.get(key), dict):
            named[key] = {"name": default, **train[key]}
    return {**raw, "train": named}


def _leave_options(raw: dict[str, Any], before: Train, changed: set[str], varied: Collection[str]) -> None:
    """Where another kind has taken the place of one, take out what it has no option for: defaults, and what a study varies."""
    for key, kind in (("optimizer", before.optimizer), ("schedule", before.schedule)):
        written = raw.get("train", {}).get(key)
        name = written.get("name", kind.name) if isinstance(written, dict) else kind.name
        if name == kind.name or f"train.{key}" in changed:
            continue
        default, kept = type(kind).model_validate({"name": kind.name}), _options(key, str(name))
        for option in set(type(kind).model_fields) - kept:
            path, given = f"train.{key}.{option}", written.get(option)
            if path not in changed and option in written and (path in varied or given == getattr(default, option)):
                del written[option]


@cache
def _options(key: str, kind: str) -> frozenset[str]:
    """The options of a kind of optimizer or schedule."""
    start = f"train.{key}."
    return frozenset(p.removeprefix(start) for p, _, of in leaves(models_schema()) if of == kind and p.startswith(start))


def _without(raw: dict[str, Any], paths: Sequence[Path_]) -> dict[str, Any]:
    """A copy without the values at these paths, and without what cannot be judged while they are wrong."""
    raw = copy.deepcopy(raw)
    for path in paths:
        keys = [part for part in path if isinstance(part, str)]
        alone = len(keys) == 1 or (len(keys) == 2 and keys[0] in ("train", "search"))
        *above, last = keys if alone else keys[:-1]
        inner: Any = raw
        for part in above:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.pop(last, None)
    if any(path[0] == "model" for path in paths):  # per-layer penalties depend on the hidden layers
        raw.pop("regularization", None)
    if any(path[:2] == ("data", "source") for path in paths) and isinstance(raw.get("data"), dict):
        raw["data"].pop("target", None)  # which the default source must not have
    if isinstance(raw.get("search"), dict):
        raw["search"] = _judgeable(raw["search"], {path[1:] for path in paths if path[0] == "search"})
    return raw


def _judgeable(search: dict[str, Any], wrong: set[Path_]) -> dict[str, Any]:
    """Without the metrics if they or their directions are wrong, and without what is drawn under a condition on a wrong path."""
    gone = {path[1] for path in wrong if path[:1] == ("space",) and len(path) > 1}
    if {("metric",), ("direction",)} & {path[:1] for path in wrong}:
        search = {key: value for key, value in search.items() if key not in ("metric", "direction", "pruner")}
        gone.add("data.scale_target")  # which loss forbids
    values = search.get("space")
    if not isinstance(values, dict):
        return search
    left = {path: kept for path, kept in values.items() if path not in gone}
    while hanging := {path for path, kept in left.items() if isinstance(kept, dict) and _names(kept.get("when"), gone)}:
        gone |= hanging
        left = {path: kept for path, kept in left.items() if path not in gone}
    return {**search, "space": left}


def _names(when: object, paths: set[str | int]) -> bool:
    return isinstance(when, dict) and not paths.isdisjoint(when)


def dump(experiment: Experiment) -> str:
    """The resolved spec, every key written out, as YAML. `load` gives an equal Experiment."""
    return write(_plain(experiment.model_dump()))


def dump_written(experiment: Experiment) -> str:
    """Only what was written, as YAML: `load` gives an Experiment whose defaults still go with their kind."""
    return write(_plain(experiment.model_dump(exclude_unset=True)))


def _plain(value: Any) -> Any:
    """Tuples as lists, models as mappings; dicts and lists anew, so that no one shares them."""
    if isinstance(value, Spec):
        return _plain(value.model_dump(exclude_unset=True))
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


@cache
def models_schema() -> Node:
    """As pydantic makes it, which names the kinds in its complaints."""
    return Experiment.model_json_schema()


def whole_spec(trained: Mapping[str, Any], experiment: Experiment | None) -> dict[str, Any]:
    """The spec of a run, with the blocks that only `experiment` knows, if that is of this run and not of a later one."""
    now = experiment.model_dump(mode="json") if experiment else {}
    agrees = all(now.get(block) == value for block, value in trained.items())
    return {**now, **trained} if agrees else dict(trained)


def flat(experiment: Experiment) -> dict[str, object]:
    """Dotted path -> value, for MLflow's params; lists, empty mappings and `when` as JSON text."""
    return dict(_flat(_plain(experiment.model_dump()), ""))


def _flat(value: Any, path: str) -> list[tuple[str, object]]:
    condition = path.startswith("search.space.") and path.endswith(".when")  # its keys are paths, not keys of the spec
    if isinstance(value, dict) and value and not condition:
        return [pair for key, inner in value.items() for pair in _flat(inner, f"{path}.{key}".lstrip("."))]
    return [(path, json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value)]
