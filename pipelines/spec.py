"""The experiment spec: what params.yaml holds. Read strictly, overridden, written out resolved, and fingerprinted.

Whatever changes a result stands here, and is checked before any framework is imported. Every error names the file and the
line, what must hold, what was found and what to do; all the errors of a file are reported at once.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Strict, Tag, ValidationError, model_validator

import backends
from backends.spec import Count, Model, Regularization, Seed, Spec, Task, Train, Trial, check_penalties
from pipelines.describe import Node, nearest, split_path
from pipelines.explain import Problem, explain, shown
from pipelines.yaml_file import Document, Path_, YamlError, parse, read_text

BUNDLED = ("digits", "breast_cancer", "wine", "iris", "diabetes", "linnerud")
FILES = (".csv", ".parquet")
SEARCHABLE = ("model", "regularization", "train", "data.scaling", "data.scale_target")


class SpecError(ValueError):
    """A spec that cannot be; the text has one line a problem."""


Fraction = Annotated[float, Field(gt=0, lt=1)]
Number = int | float
Text = Annotated[str, Field(min_length=1)]


class Split(Spec):
    """Three disjoint parts: training rows fit, validation rows choose, test rows are opened by the test stage alone."""

    train: Fraction = Field(0.6, description="share of the rows that fit weights and preprocessing")
    valid: Fraction = Field(0.2, description="share of the rows that choose: early stopping, search")
    test: Fraction = Field(0.2, description="share of the rows kept for the number that is reported")
    seed: Seed = Field(0, description="of the split alone, so that runs of many seeds share their rows")
    stratify: bool | Literal["auto"] = Field("auto", description="keep the shares of the classes; auto: in classification")

    @model_validator(mode="after")
    def _whole(self) -> Split:
        total = self.train + self.valid + self.test
        if abs(total - 1) > 1e-9:
            sizes = f"{self.train} + {self.valid} + {self.test} = {total:.10g}"
            raise ValueError(f"train plus valid plus test must be 1, got {sizes}")
        return self


class DataSpec(Spec):
    """Which rows, what is predicted from them, and how numbers are scaled (with statistics of the training rows)."""

    source: Text = Field("digits", description=f"a bundled set ({', '.join(BUNDLED)}), or the path of a .csv or .parquet file")
    target: Text | Annotated[tuple[Text, ...], Strict(False)] | None = Field(
        None, description="column or columns to predict; for files only, the bundled sets have their own"
    )
    task: Literal["auto", "regression", "binary", "multiclass"] = Field("auto", description="auto: by the target's values")
    split: Split = Split()
    scaling: Literal["none", "standardize", "minmax", "quantile"] = Field(
        "standardize", description="of numeric inputs; quantile maps to a normal distribution"
    )
    scale_target: bool = Field(True, description="regression: train on standardised targets; metrics keep the target's units")

    @model_validator(mode="after")
    def _source_and_target(self) -> DataSpec:
        bundled, file = self.source in BUNDLED, self.source.lower().endswith(FILES)
        if not (bundled or file):
            hint = nearest(self.source, list(BUNDLED))
            near = f"; {hint}" if hint.startswith("did") else ""
            known = f"one of: {', '.join(BUNDLED)}, or the path of a .csv or .parquet file"
            raise ValueError(f"source must be {known}, got {self.source!r}{near}")
        if bundled and self.target is not None:
            raise ValueError(f"target must be null for the bundled set {self.source}, which has its own, got {self.target!r}")
        if file and not self.target:
            raise ValueError(f"target must name what to predict, a column of {self.source} or a list of them, got nothing")
        return self


class Threshold(Spec):
    """What a metric of the validation report must reach; the pipeline stops where it does not."""

    min: float | None = Field(None, description="the least that passes")
    max: float | None = Field(None, description="the most that passes")

    @model_validator(mode="after")
    def _passable(self) -> Threshold:
        if self.min is None and self.max is None:
            raise ValueError("min or max must be given, got neither")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min must be at most max, got {self.min} and {self.max}")
        return self


class Range(Spec):
    """All numbers from low to high; whole numbers where the key takes whole numbers."""

    low: Number = Field(description="the least value")
    high: Number = Field(description="the greatest value")
    log: bool = Field(False, description="draw log(value) evenly")

    @model_validator(mode="after")
    def _not_empty(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must lie in (0, ∞) where log is true, got {self.low}")
        return self


class Choices(Spec):
    """One of these values."""

    choices: Annotated[tuple[Any, ...], Strict(False), Field(min_length=1, description="the values to choose from")]


def _range_or_choices(value: object) -> str:
    has = "choices" in value if isinstance(value, dict) else isinstance(value, Choices)
    return "choices" if has else "range"


Space = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_range_or_choices)
]


def check_metric(key: str, metric: str) -> None:
    """The test rows must not choose: raises ValueError for a metric of theirs."""
    if metric.lower().startswith("test"):
        raise ValueError(f"{key} must be a metric of the validation rows, got {metric!r}; the test rows must not choose")


class Search(Spec):
    """A study: which keys vary over which values, and what is best. `deltarule search` reads it; nothing else does."""

    metric: Text = Field("loss", description="a metric of the validation rows; loss is E without penalty")
    direction: Literal["minimize", "maximize"] = "minimize"
    trials: Count = Field(50, description="how many experiments in all")
    seed: Seed = Field(0, description="of the sampler")
    space: dict[str, Space] = Field({}, description="dotted path of the spec -> {low, high, log} or {choices}")

    @model_validator(mode="after")
    def _not_of_the_test_rows(self) -> Search:
        check_metric("metric", self.metric)
        return self


class Tracking(Spec):
    """Where runs are put on record: MLflow."""

    enabled: bool = Field(True, description="false: no run is recorded")
    uri: Text | None = Field(None, description="tracking server; null: a sqlite database inside the project")
    experiment: Text = Field("deltarule", description="the MLflow experiment that the runs stand under")


class Experiment(Spec):
    """One experiment, whole."""

    seed: Seed = Field(0, description="of the run: initial weights, order of rows, dropout")
    data: DataSpec = DataSpec()
    model: Model = Model()
    regularization: Regularization = Regularization()
    train: Train = Train()
    thresholds: dict[str, Threshold] = Field({}, description="metric of the validation report -> bounds")
    search: Search = Search()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _blocks_agree(self) -> Experiment:
        penalties = self.regularization
        problems = [
            *_caught("regularization.", check_penalties, "l1", penalties.l1, self.model),
            *_caught("regularization.", check_penalties, "l2", penalties.l2, self.model),
            *_caught("", backends.check_name, self.train.backend),
        ]
        for metric in self.thresholds:
            problems += _caught("thresholds.", check_metric, metric, metric)
        problems += [line for path, values in self.search.space.items() for line in _refusals(self, path, values)]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def override(self, path: str | Mapping[str, object], value: object = None) -> Experiment:
        """The experiment with one value changed, or several: override("model.activation", "tanh"), override({...})."""
        changes = path if isinstance(path, Mapping) else {path: value}
        raw = _plain(self.model_dump(exclude_unset=True))
        for where, what in changes.items():
            _put(raw, _known_path(where), _plain(what))
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


def _refusals(experiment: Experiment, path: str, values: Range | Choices) -> list[str]:
    """Why this range cannot be searched; empty if it can."""
    unknown = _caught(f"search.space.{path}: ", split_path, path, schema())
    if unknown:
        return unknown
    if not any(path == block or path.startswith(f"{block}.") for block in SEARCHABLE):
        return [f"search.space.{path}: a key that is searched must be one of {', '.join(SEARCHABLE)}, or lie in one"]
    bare = experiment.model_copy(update={"search": Search(), "thresholds": {}})
    tried = values.choices if isinstance(values, Choices) else (values.low, values.high)
    lines: dict[str, None] = {}
    for value in tried:
        try:
            bare.override(path, value)
        except SpecError as error:
            lines |= dict.fromkeys(str(error).splitlines())
    return [f"search.space.{path}: {line}" for line in lines]


# Reading ---------------------------------------------------------------------------------------------------------------


def load(path: Path = Path("params.yaml"), overrides: Sequence[str] = ()) -> Experiment:
    """Read a spec, with overrides of the form "a.b=value" (value in YAML). Raises SpecError with all that is wrong."""
    try:
        document = parse(read_text(path))
    except YamlError as error:
        raise SpecError(f"{_place(path, error.line, error.column)}: {error}") from None
    if not isinstance(document.value, dict):
        faults = [f"{_place(path, line)}: {text}" for line, text in document.faults]
        got = "an empty file" if document.value is None else shown(document.value)
        raise SpecError("\n".join([*faults, f"{path}: must be a mapping of the spec's keys, got {got}"]))
    options, wrong = _apply(document, overrides)
    experiment, problems = _validate(document.value)
    lines = [(line, f"{_place(path, line)}: {text}") for line, text in document.faults]
    faulty = {line for line, _ in lines}
    lines += [(0, text) for text in wrong]
    for problem in problems:
        label, line = _label(problem.path, path, document.lines, options)
        if line not in faulty:
            lines.append((line, f"{label}: {problem.text}"))
    if experiment is None or lines:
        raise SpecError("\n".join(text for _, text in sorted(lines, key=lambda item: item[0])))
    return experiment


def _apply(document: Document, overrides: Sequence[str]) -> tuple[dict[Path_, str], list[str]]:
    """Write the overrides into the document. Returns which option set which path, and what is wrong with the options."""
    options: dict[Path_, str] = {}
    wrong: list[str] = []
    for text in overrides:
        option = f"--set {text}"
        name, equals, value = text.partition("=")
        try:
            if not equals or not name.strip():
                raise SpecError("must have the form path=value, such as model.dropout=0.3")
            path = _known_path(name.strip())
            read = parse(value)
            wrong += [f"{option}: {fault}" for _, fault in read.faults]
            _put(document.value, path, read.value)
        except (SpecError, YamlError) as error:
            wrong.append(f"{option}: {error}")
            continue
        options = {known: label for known, label in options.items() if known[: len(path)] != path} | {path: option}
        document.lines = {known: line for known, line in document.lines.items() if known[: len(path)] != path}
    return options, wrong


def _known_path(text: str) -> tuple[str, ...]:
    try:
        return split_path(text, schema())
    except ValueError as error:
        raise SpecError(str(error)) from None


def _put(raw: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    """raw[path[0]][path[1]]... = value; what lies between is made."""
    for part in path[:-1]:
        if not isinstance(raw.get(part), dict):
            raw[part] = {}
        raw = raw[part]
    raw[path[-1]] = value


def _place(path: Path, line: int | None, column: int | None = None) -> str:
    return ":".join(str(part) for part in (path, line, column) if part is not None)


def _label(path: Path_, file: Path, lines: dict[Path_, int], options: dict[Path_, str]) -> tuple[str, int]:
    """What to name as the place of a problem: the option that set it, or else the nearest line of the file."""
    for end in range(len(path), -1, -1):
        if path[:end] in options:
            return options[path[:end]], 0
        if end and path[:end] in lines:
            return _place(file, lines[path[:end]]), lines[path[:end]]
        beside = [option for known, option in options.items() if end and known[:end] == path[:end]]
        if beside:
            return beside[0], 0
    return str(file), 0


def _validate(raw: dict[str, Any]) -> tuple[Experiment | None, list[Problem]]:
    """The experiment, or all that is wrong with it."""
    raw = _name_kinds(raw)
    try:
        return Experiment.model_validate(raw), []
    except ValidationError as error:
        problems = explain(error, schema())
    # What spans several keys is only looked at once each key is right: look at it with the wrong ones left out.
    try:
        Experiment.model_validate(_without(raw, [problem.path for problem in problems]))
    except ValidationError as error:
        problems += [problem for problem in explain(error, schema()) if problem not in problems]
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


def _without(raw: dict[str, Any], paths: Sequence[Path_]) -> dict[str, Any]:
    """A copy without the values at these paths, and without what cannot be judged while they are wrong."""
    raw = copy.deepcopy(raw)
    for path in paths:
        cut = path if path[0] in ("train", "search") and len(path) == 2 else path[:-1] or path
        inner: Any = raw
        for part in cut[:-1]:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.pop(cut[-1], None)
    if any(path[0] == "model" for path in paths):  # per-layer penalties depend on the hidden layers
        raw.pop("regularization", None)
    return raw


# Writing and identity --------------------------------------------------------------------------------------------------


def dump(experiment: Experiment) -> str:
    """The resolved spec, every key written out, as YAML. `load` gives an equal Experiment."""
    from ruamel.yaml import YAML

    yaml, text = YAML(), io.StringIO()
    yaml.width = 120
    yaml.dump(_flow_lists(_plain(experiment.model_dump())), text)
    return text.getvalue()


def _plain(value: Any) -> Any:
    """Tuples as lists, models as mappings; dicts and lists anew, so that no one shares them."""
    if isinstance(value, Spec):
        return _plain(value.model_dump(exclude_unset=True))
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _flow_lists(value: Any) -> Any:
    """Lists on one line, mappings on several."""
    from ruamel.yaml.comments import CommentedSeq

    if isinstance(value, dict):
        return {key: _flow_lists(inner) for key, inner in value.items()}
    if isinstance(value, list):
        items = CommentedSeq(_flow_lists(inner) for inner in value)
        items.fa.set_flow_style()
        return items
    return value


@cache
def schema() -> Node:
    """The JSON Schema of params.yaml."""
    found = Experiment.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "deltarule experiment spec"}


def flat(experiment: Experiment) -> dict[str, object]:
    """Dotted path -> value, for MLflow's params; lists and empty mappings as JSON text."""
    return dict(_flat(_plain(experiment.model_dump()), ""))


def _flat(value: Any, path: str) -> list[tuple[str, object]]:
    if isinstance(value, dict) and value:
        return [pair for key, inner in value.items() for pair in _flat(inner, f"{path}.{key}".lstrip("."))]
    return [(path, json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value)]


def fingerprint(experiment: Experiment, data_hashes: Mapping[str, str], source_hash: str) -> str:
    """What the train stage depends on, as 32 hex digits: the same fingerprint, the same trained network.

    Covers seed, model, regularization and train of the resolved spec (whether a default is written out makes no difference),
    the hashes of the training and validation parts (which carry source, target, task, split and scaling), and the hash of
    the source that the stage runs. Not: thresholds, search, tracking, the test part, library versions, the machine.
    """
    if any(part.startswith("test") for part in data_hashes):
        raise ValueError(f"data_hashes must be those of the training and validation parts, got {sorted(data_hashes)}")
    blocks = experiment.model_dump(mode="json", include={"seed", "model", "regularization", "train"})
    whole = {"spec": blocks, "data": dict(data_hashes), "source": source_hash}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def source_hash(backend: str) -> str:
    """sha256 over the source that the train stage runs: the contracts, one backend, the stage and the metrics.

    A backend of another distribution counts with the whole of its package. Nothing is imported.
    """
    root = Path(__file__).resolve().parents[1]
    module = backends.registered()[backend][0].partition(":")[0]
    files = [*root.glob("backends/*.py"), root / "pipelines/metrics.py", root / "pipelines/stages/train.py"]
    digest = hashlib.sha256()
    for base, file in [(root, f) for f in files if f.is_file()] + _backend_files(root, module):
        digest.update(f"{file.relative_to(base).as_posix()}\0".encode())
        digest.update(file.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


def _backend_files(root: Path, module: str) -> list[tuple[Path, Path]]:
    from importlib.util import find_spec

    if module.startswith("backends."):
        folder = root / Path(*module.split("."))
        return [(root, file) for file in sorted(folder.rglob("*.py"))]
    found = find_spec(module.partition(".")[0])  # of the outermost package: that imports nothing
    if found is None or found.origin is None:
        return []
    origin = Path(found.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    return [(origin.parent.parent, file) for file in files]


def trial(experiment: Experiment, task: Task, inputs: int, outputs: int) -> Trial:
    """The experiment as a backend sees it, once the data say how many inputs and outputs there are."""
    e = experiment
    return Trial(
        seed=e.seed, task=task, inputs=inputs, outputs=outputs, model=e.model, regularization=e.regularization, train=e.train
    )
