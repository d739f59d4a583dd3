"""A spec as it is written: the file, the changes laid over it, and where each value comes from."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from backends.spec import Model, Regularization
from pipelines.spec.describe import LAYERED, Node, Path_, split_path
from pipelines.spec.explain import Problem, shown
from pipelines.spec.yaml_file import YamlError, flow, parse, read_text

# How a problem of the data says what to set: "set data.format.encoding: latin-1", "set data.columns: {age: categorical}".
# The braces may hold quoted texts, and braces once more.
QUOTED = r'"(?:[^"\\]|\\.)*"'
INNER = rf"\{{(?:{QUOTED}|[^{{}}\"])*\}}"
TO_SET = re.compile(rf"\bset (data\.[\w.]+): (\{{(?:{QUOTED}|{INNER}|[^{{}}\"])*\}}|[\w-]+)")
DEFAULTS = {"model": Model(), "regularization": Regularization()}
Places = dict[Path_, tuple[int, str]]  # path -> line (0 of an option), and what stands before a message


class SpecError(ValueError):
    """A spec that cannot be; the text has one line a problem."""


def read(path: Path) -> tuple[dict[str, Any], Places]:
    """The keys of a file, and where each stands. Raises SpecError where it is no mapping in YAML."""
    try:
        document = parse(read_text(path))
    except YamlError as error:
        raise SpecError(f"{path}{error.place}: {error}") from None
    if not isinstance(document.value, dict):
        got = "an empty file" if document.value is None else shown(document.value)
        raise SpecError(f"{path}: must be a mapping of the spec's keys (seed, data, model, ...), got {got}")
    return document.value, {key: (line, f"{path}:{line}") for key, line in document.lines.items()}


def change_of(text: str) -> tuple[str, Any]:
    """ "a.b=value", as --set takes it, as path and value. Raises ValueError."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError("must have the form path=value, such as model.dropout=0.3")
    return name.strip(), parse(value).value


def values_of(changes: Sequence[str]) -> dict[str, Any]:
    """path -> value of each --set, where there is no file to lay them over. Raises SpecError."""
    found = {}
    for text in changes:
        try:
            name, value = change_of(text)
        except ValueError as error:
            raise SpecError(f"--set {text}: {error}") from None
        found[name] = value
    return found


def known_path(text: str, schema: Node) -> Path_:
    """The parts of a dotted path; SpecError if the spec has no such key."""
    try:
        return split_path(text, schema)
    except ValueError as error:
        raise SpecError(str(error)) from None


def place_option(places: Places, path: Path_, option: str) -> None:
    """From now on the value at `path` comes from `option`, and so do the mappings above it that the file does not have."""
    for below in [known for known in places if known[: len(path)] == path]:
        del places[below]
    for end in range(1, len(path) + 1):
        places.setdefault(path[:end], (0, option))


def located(problems: Iterable[Problem], places: Places, path: Path) -> list[str]:
    """One line a problem, with the nearest place that is known: those of options first, then the file from top to bottom."""
    found = []
    for problem in problems:
        ends = range(len(problem.path), 0, -1)
        line, place = next((places[problem.path[:end]] for end in ends if problem.path[:end] in places), (0, str(path)))
        found.append((line, f"{place}: {problem.text}"))
    return [text for _, text in sorted(found, key=lambda item: item[0])]


def lay_over(raw: dict[str, Any], changes: Iterable[tuple[Path_, Any]]) -> list[Problem]:
    """Set the value at each path, the last one holding; mappings in between are made. Returns what is wrong with layers.

    A path may end in a layer, ("model", "dropout", 1): it changes one of the values that the spec has for all layers.
    """
    layers: dict[Path_, Any] = {}
    for path, value in changes:
        layers = {layer: one for layer, one in layers.items() if layer[: len(path)] != path}
        if isinstance(path[-1], int):
            layers[path] = value
        else:
            _put(raw, path, value)
    # A layer waits until the number of layers is known: model.hidden may be changed before or after it.
    return [
        problem for (block, key, layer), one in layers.items() for problem in _put_layer(raw, str(block), str(key), layer, one)
    ]


def _put(raw: dict[str, Any], path: Path_, value: object) -> None:
    for part in path[:-1]:
        if not isinstance(raw.get(str(part)), dict):
            raw[str(part)] = {}
        raw = raw[str(part)]
    raw[str(path[-1])] = value


def _put_layer(raw: dict[str, Any], block: str, key: str, layer: int | str, value: object) -> list[Problem]:
    """Nothing is put where the layers cannot be counted, which is refused for itself."""

    def written(block: str, key: str) -> Any:
        keys = raw.get(block)
        return keys[key] if isinstance(keys, dict) and key in keys else getattr(DEFAULTS[block], key)

    more, what = LAYERED[f"{block}.{key}"]
    hidden, values = written("model", "hidden"), written(block, key)
    if not isinstance(hidden, list | tuple):
        return []
    count = len(hidden) + more
    values = list(values) if isinstance(values, list | tuple) else [values] * count
    if int(layer) >= count:
        place = f"in [0, {count}), one of the {what}, got {layer}" if count else f"of the {what}, of which there are none"
        return [Problem((block, key, layer), f"{block}.{key}.{layer} must name a layer {place}")]
    if len(values) == count:
        values[int(layer)] = value
        _put(raw, (block, key), values)
    return []


def as_option(problem: str) -> str:
    """What is wrong with the data, and at its end what to set as an option, for those who have no spec yet."""
    options: list[str] = []
    for path, value in TO_SET.findall(problem):
        try:
            said = parse(value).value
        except YamlError:
            continue
        pairs = said.items() if isinstance(said, dict) else [("", said)]
        for key, inner in pairs:
            change = f"{path}.{key}".rstrip(".") + f"={flow(inner)}"
            options.append(f"--set {shlex.quote(change)}")
    if not options:
        return problem
    return f"{problem}; give it as {', or '.join(dict.fromkeys(options))}"
