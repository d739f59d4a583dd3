"""A spec as it is written: the file, the overrides laid over it, and where each value comes from."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.spec import Model, Regularization
from pipelines.spec.describe import LAYERED, Node, split_path
from pipelines.spec.explain import Problem, shown
from pipelines.spec.yaml_file import Document, Path_, YamlError, parse, read_text

# How a problem of the data says what to set: "set data.format.encoding: latin-1", "set data.columns: {age: categorical}".
TO_SET = re.compile(r"\bset (data\.[\w.]+): (?:\{([^{}]*): (\w+)\}|([\w-]+))")


class SpecError(ValueError):
    """A spec that cannot be; the text has one line a problem."""


@dataclass
class SpecFile:
    """The keys as written, after the overrides; the line or the option that each comes from; what is wrong so far."""

    path: Path
    raw: dict[str, Any]
    lines: dict[Path_, int]
    faults: list[tuple[int, str]]  # of the file, by line
    options: dict[Path_, str] = field(default_factory=dict)  # the override that set a path
    wrong: list[str] = field(default_factory=list)  # with the overrides

    @classmethod
    def read(cls, path: Path, overrides: Sequence[str], schema: Node) -> SpecFile:
        """Raises SpecError where the file is no mapping in YAML; lesser problems are kept for `report`."""
        try:
            document = parse(read_text(path))
        except YamlError as error:
            raise SpecError(f"{_place(path, error.line, error.column)}: {error}") from None
        if not isinstance(document.value, dict):
            raise SpecError("\n".join(_no_mapping(path, document)))
        file = cls(path, document.value, document.lines, document.faults)
        for text in overrides:
            file._override(text, schema)
        return file

    def _override(self, text: str, schema: Node) -> None:
        """Lay "a.b=value" over the file."""
        option = f"--set {text}"
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            self.wrong.append(f"{option}: must have the form path=value, such as model.dropout=0.3")
            return
        try:
            path, document = known_path(name.strip(), schema), parse(value)
        except (SpecError, YamlError) as error:
            self.wrong.append(f"{option}: {error}")
            return
        self.wrong += [f"{option}: {sentence}" for _, sentence in document.faults]
        put(self.raw, path, document.value)
        self.lines = {known: line for known, line in self.lines.items() if known[: len(path)] != path}
        self.options = {known: by for known, by in self.options.items() if known[: len(path)] != path}
        self.options[path] = option

    def report(self, problems: Iterable[Problem]) -> list[str]:
        """One line a problem, each with its place: overrides first, then the file from top to bottom."""
        found = [(line, f"{_place(self.path, line)}: {text}") for line, text in self.faults]
        found += [(0, text) for text in self.wrong]
        faulty = {line for line, _ in self.faults}  # what is refused as written is not also judged as a value
        for problem in problems:
            line, place = self._origin(problem.path)
            if line not in faulty and not any(text.startswith(f"{place}: ") for text in self.wrong):
                found.append((line, f"{place}: {problem.text}"))
        return [text for _, text in sorted(found, key=lambda item: item[0])]

    def _origin(self, path: Path_) -> tuple[int, str]:
        """(line or 0, place): the option that set the value, or the nearest line of the file above it."""
        for end in range(len(path), 0, -1):
            above = path[:end]
            if above in self.options:
                return 0, self.options[above]
            if above in self.lines:
                return self.lines[above], _place(self.path, self.lines[above])
            beside = [option for known, option in self.options.items() if known[:end] == above]
            if beside:  # a key that is missing from a mapping which an option has opened
                return 0, beside[-1]
        return 0, str(self.path)


def _no_mapping(path: Path, document: Document) -> list[str]:
    got = "an empty file" if document.value is None else shown(document.value)
    faults = [f"{_place(path, line)}: {text}" for line, text in document.faults]
    return faults or [f"{path}: must be a mapping of the spec's keys (seed, data, model, ...), got {got}"]


def _place(path: Path, line: int | None, column: int | None = None) -> str:
    return ":".join(str(part) for part in (path, line, column) if part)


def known_path(text: str, schema: Node) -> Path_:
    """The parts of a dotted path; SpecError if the spec has no such key."""
    try:
        return split_path(text, schema)
    except ValueError as error:
        raise SpecError(str(error)) from None


def values_of(changes: Sequence[str]) -> dict[str, object]:
    """path -> value of each --set, where there is no file to lay them over. Raises SpecError."""
    found: dict[str, object] = {}
    for text in changes:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise SpecError(f"--set {text}: must have the form path=value, such as data.format.decimal=comma")
        try:
            found[name.strip()] = parse(value).value
        except YamlError as error:
            raise SpecError(f"--set {text}: {error}") from None
    return found


def as_option(problem: str) -> str:
    """What is wrong with the data, and at its end what to set as an option: for who has no spec to set it in."""
    found = TO_SET.search(problem)
    if found is None:
        return problem
    path, column, kind, value = found.groups()
    change = f"{path}.{column}={kind}" if column else f"{path}={value}"
    return f"{problem}; give it as --set {shlex.quote(change)}"


# The value of one layer by a path of its own, model.dropout.1: laid over what the spec holds for all of them. It waits until the
# number of layers is known, so it does not matter whether model.hidden is overridden before or after it.

ABSENT = object()
DEFAULTS = {"model": Model(), "regularization": Regularization()}


@dataclass
class Layers:
    """What stands at a key, if anything does, and what single layers are to have, counted from 0."""

    all: Any
    single: dict[int, Any] = field(default_factory=dict)


def put(raw: dict[str, Any], path: Sequence[str | int], value: object) -> None:
    """raw[path[0]][path[1]]... = value; mappings in between are made. A whole number at the end is a layer."""
    if isinstance(path[-1], int):
        layer, path = path[-1], path[:-1]
        before = _get(raw, path)
        layers = before if isinstance(before, Layers) else Layers(before)
        value = Layers(layers.all, {**layers.single, layer: value})
    for part in path[:-1]:
        if not isinstance(raw.get(str(part)), dict):
            raw[str(part)] = {}
        raw = raw[str(part)]
    raw[str(path[-1])] = value


def _get(raw: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        raw = raw.get(part, ABSENT) if isinstance(raw, dict) else ABSENT
    return raw


def written_out(raw: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[tuple[str, str, int], str]]]:
    """A copy with one value a layer where a layer has its own; (path, sentence) of each layer that there is not."""
    raw = {block: dict(keys) if isinstance(keys, dict) else keys for block, keys in raw.items()}
    wrong: list[tuple[tuple[str, str, int], str]] = []
    for name in LAYERED:
        block, key = name.split(".")
        layers = _get(raw, (block, key))
        if isinstance(layers, Layers):
            value = getattr(DEFAULTS[block], key) if layers.all is ABSENT else layers.all
            hidden = value if key == "hidden" else _get(raw, ("model", "hidden"))
            raw[block][key] = _listed(name, value, layers.single, Model().hidden if hidden is ABSENT else hidden, wrong)
    return raw, wrong


def _listed(name: str, value: Any, single: dict[int, Any], hidden: Any, wrong: list[tuple[tuple[str, str, int], str]]) -> Any:
    """The values of all layers; as it was where the layers cannot be counted, which is refused for itself."""
    more, what = LAYERED[name]
    count = len(hidden) + more if isinstance(hidden, list | tuple) else 0
    listed = list(value) if isinstance(value, list | tuple) else [value] * count
    if not isinstance(hidden, list | tuple) or len(listed) != count:
        return value
    for layer, own in single.items():
        if layer < count:
            listed[layer] = own
        else:
            block, key = name.split(".")
            place = f"in [0, {count}), one of the {what}, got {layer}" if count else f"of the {what}, of which there are none"
            wrong.append(((block, key, layer), f"{name}.{layer} must name a layer {place}"))
    return listed
