"""One experiment, whole: read strictly from params.yaml, overridden, and written out resolved."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError, field_validator, model_validator

import backends
from backends.spec import Model, Regularization, Seed, Spec, Train, check_penalties
from pipelines.project import project_of
from pipelines.spec import space
from pipelines.spec.blocks import DataSpec, Threshold, Tracking, Validation
from pipelines.spec.describe import Node, Problem, SpecError, explain, inlined, kind, members, node_at, split_path, unusable_text
from pipelines.spec.file import change_of, lay_over, located, place_option, read, write
from pipelines.spec.study import Search, check_metric, refused_metric


class Experiment(Spec):
    """One experiment, whole."""

    seed: Seed = Field(0, description="of the run: initial weights, order of rows, dropout")
    data: DataSpec = DataSpec()
    model: Model = Model()
    regularization: Regularization = Regularization()
    train: Train = Train()
    validation: Validation = Validation()
    thresholds: dict[str, Threshold] = Field(
        {}, description="metric of the validation report -> bounds that hold the pipeline", json_schema_extra={"x-key": "metric"}
    )
    search: Search = Search()
    tracking: Tracking = Tracking()

    @field_validator("train")
    @classmethod
    def _on_a_backend(cls, train: Train) -> Train:
        backends.check_name(train.backend)
        return train

    @field_validator("thresholds")
    @classmethod
    def _of_validation_rows(cls, thresholds: dict[str, Threshold]) -> dict[str, Threshold]:
        for metric in thresholds:
            check_metric(metric, metric)
        return thresholds

    @field_validator("search")
    @classmethod
    def _of_known_paths(cls, search: Search) -> Search:
        problems = space.refusals(search, models_schema())
        if problems:
            raise ValueError("\n".join(problems))
        return search

    @model_validator(mode="after")
    def _blocks_agree(self) -> Experiment:
        check_penalties("regularization.l1", self.regularization.l1, self.model)
        check_penalties("regularization.l2", self.regularization.l2, self.model)
        if self.seed + self.search.seeds > 2**32:  # the networks of a trial have seeds seed, seed + 1, ...
            most = f"{2**32 - self.seed}, of seed {self.seed} and those after it"
            raise ValueError(f"search.seeds must be at most {most}, got {self.search.seeds}")
        if wrong := refused_metric("train.early_stopping.monitor", self.train.early_stopping.monitor):
            raise ValueError(wrong)
        problems = space.refused_values(self.search.space, self.drawn)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def alone(self) -> Experiment:
        """Without search and thresholds: its overrides cost no check of the space. One trial of a study."""
        return self.model_copy(update={"search": Search(), "thresholds": {}})

    def override(self, path: str | Mapping[str, object], value: object = ...) -> Experiment:
        """The experiment with one value changed, override("model.activation", "tanh"), or several, override({...}).

        Raises SpecError. Defaults go with their kind, also if written out: override("train.optimizer.name", "sgd").
        One layer has a path of its own, counted from 0: override("model.dropout.1", 0.3).
        """
        if isinstance(path, str) and value is ...:
            raise TypeError(f"override needs a value for {path}; None is one, and must be given")
        return self._overridden(path if isinstance(path, Mapping) else {path: value}, ())

    def with_data(self, X: Any, y: Any = None, *, target: Any = None, project: Path | None = None) -> Experiment:
        """The experiment on rows that are given: a DataFrame or a mapping of columns with its `target`, or X (n, m) and y (n,).

        They are kept in the project, in a Parquet file of .deltarule/rows that data.source names: a run on them can be repeated.
        Columns without names are x0, x1, ... and y; an index is no column. Of pandas' type category is categorical, unless
        data.columns says otherwise. Raises SpecError.
        """
        from pipelines.given import columns_of, free, keep

        columns = columns_of(X, "x")
        named = _names(target, columns)
        targets = named or list(self.data.targets)
        if y is not None:
            answers = columns_of(y, free("y", columns))
            targets = named or list(answers)
            if len(targets) != len(answers) or columns.keys() & {*targets}:
                must = "target must name each column of y once, and none of X"
                raise SpecError(f"{must}, got {', '.join(targets)} for {', '.join(answers)}")
            columns |= dict(zip(targets, answers.values(), strict=True))
        categories = [name for name, values in columns.items() if str(getattr(values, "dtype", "")) == "category"]
        unsaid = [name for name in categories if not any(fnmatchcase(name, said) for said in self.data.columns)]
        return self.override(
            {
                "data.source": keep(columns, project or project_of(Path())),
                "data.sha256": None,
                "data.target": targets[0] if len(targets) == 1 else targets or None,
                "data.columns": {**dict.fromkeys(unsaid, "categorical"), **self.data.columns},
            }
        )

    def drawn(self, changes: Mapping[str, object]) -> Experiment:
        """One trial of a study: `alone`, with what was drawn laid over it. Raises SpecError.

        An option that the study varies goes with its kind, where another kind is drawn: adam has no momentum.
        """
        return self.alone()._overridden(changes, self.search.space)

    def _overridden(self, changes: Mapping[str, object], varied: Collection[str]) -> Experiment:
        raw = self.model_dump(mode="json", exclude_unset=True)
        problems = lay_over(raw, [(split_path(path, models_schema()), _plain(v)) for path, v in changes.items()])
        _leave_options(raw, self.train, set(changes), varied)
        experiment, more = _validate(raw)
        if experiment is None or problems:
            raise SpecError("\n".join(problem.text for problem in (*problems, *more)))
        return experiment


def load(path: Path | str = "params.yaml", overrides: Sequence[str] = ()) -> Experiment:
    """Read a spec, with overrides of the form "a.b=value" (value in YAML). Raises SpecError with all that is wrong."""
    raw, places = read(Path(path))
    changes, wrong = [], []
    for option in overrides:
        try:
            name, value = change_of(option)
            changes.append((split_path(name, models_schema()), value))
            place_option(places, changes[-1][0], f"--set {option}")
        except ValueError as error:
            wrong.append(f"--set {option}: {error}")
    problems = lay_over(raw, changes)
    experiment, more = _validate(raw)
    if experiment is None or problems or wrong:
        raise SpecError("\n".join([*wrong, *located((*problems, *more), places, Path(path))]))
    return experiment


def _validate(raw: dict[str, Any]) -> tuple[Experiment | None, list[Problem]]:
    """The experiment, or what is wrong: with each key; once those of a block are right, with the block; then with them all."""
    train = raw.get("train")
    if isinstance(train, dict):  # an optimizer or schedule without a name is one of the default kind
        usual = {"optimizer": Train().optimizer.name, "schedule": Train().schedule.name}
        named = {key: {"name": usual[key], **train[key]} for key in usual if isinstance(train.get(key), dict)}
        raw = {**raw, "train": {**train, **named}}
    if unusable := list(unusable_text(raw, ())):
        return None, unusable
    try:
        return Experiment.model_validate(raw), []
    except ValidationError as error:
        return None, explain(error, raw, models_schema())


def _leave_options(raw: dict[str, Any], before: Train, changed: set[str], varied: Collection[str]) -> None:
    """Where another kind has taken the place of one, take out what it has no option for: defaults, and what a study varies."""
    for key, old in (("optimizer", before.optimizer), ("schedule", before.schedule)):
        written = raw["train"].get(key) if isinstance(raw.get("train"), dict) else None
        if not isinstance(written, dict) or f"train.{key}" in changed:
            continue
        kinds = {kind(member): member["properties"] for member in members(node_at(("train", key), models_schema()))}
        for option in type(old).model_fields.keys() & written.keys() - kinds.get(str(written.get("name", old.name)), {}).keys():
            path, usual = f"train.{key}.{option}", type(old).model_fields[option].default
            if path not in changed and (path in varied or written[option] == usual):
                del written[option]


def _names(target: Any, columns: Collection[str]) -> list[str]:
    """Raises SpecError for what is no name."""
    single = isinstance(target, str) or not isinstance(target, Iterable)
    names = [target] if single else list(target)
    if target is None or all(isinstance(name, str) for name in names):
        return [name for name in names if name]
    must = "target must be the name of a column, or a list of names"
    way = f"; here columns are named by text: target={str(target)!r}" if str(target) in columns else ""
    raise SpecError(f"{must}, got {target!r}{way}")


def _plain(value: Any) -> Any:
    """Models as mappings, NumPy's values as Python's; dicts and lists anew, so that no one shares them.

    What else it may be is judged with the spec.
    """
    if isinstance(value, Spec):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def dump(experiment: Experiment) -> str:
    """The resolved spec, every key written out, as YAML. `load` gives an equal Experiment."""
    return write(experiment.model_dump(mode="json"))


def dump_written(experiment: Experiment) -> str:
    """Only what was written, as YAML: `load` gives an Experiment whose defaults still go with their kind."""
    return write(experiment.model_dump(mode="json", exclude_unset=True))


@cache
def models_schema() -> Node:
    """The JSON Schema of the spec, as pydantic makes it, without $ref."""
    return inlined(Experiment.model_json_schema())


def whole_spec(trained: Mapping[str, Any], experiment: Experiment | None) -> dict[str, Any]:
    """The spec of a run, with the blocks that only `experiment` knows, if that is of this run and not of a later one."""
    now = experiment.model_dump(mode="json") if experiment else {}
    agrees = all(now.get(block) == value for block, value in trained.items())
    return {**now, **trained} if agrees else dict(trained)


def flat(experiment: Experiment) -> dict[str, object]:
    """Dotted path -> value, for MLflow's params; lists, empty mappings and `when` as JSON text."""
    return dict(_flat(experiment.model_dump(mode="json"), ""))


def _flat(value: Any, path: str) -> list[tuple[str, object]]:
    condition = path.startswith("search.space.") and path.endswith(".when")  # its keys are paths, not keys of the spec
    if isinstance(value, dict) and value and not condition:
        return [pair for key, inner in value.items() for pair in _flat(inner, f"{path}.{key}".lstrip("."))]
    return [(path, json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value)]
