"""A spec as it is written: strict YAML 1.2, the values that DVC would read; the line of each, and the changes laid over them.

Duplicate keys, anchors, aliases (which can expand to gigabytes), tags and YAML versions are refused before any value is built.
"""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, DocumentStartEvent, Event
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.representer import RoundTripRepresenter

from backends.spec import Model, Regularization
from pipelines.spec.describe import LAYERED, Path_, Problem, SpecError, shown

MAX_BYTES = 1_000_000
MAX_DEPTH = 32  # the spec needs 5; more only serves to exhaust the stack
# How a problem of the data says what to set: "set data.format.encoding: latin-1", "set data.columns: {age: categorical}".
# The braces may hold quoted texts, and braces once more.
QUOTED = r'"(?:[^"\\]|\\.)*"'
INNER = rf"\{{(?:{QUOTED}|[^{{}}\"])*\}}"
TO_SET = re.compile(rf"\b(set|and) (data\.[\w.]+): (\{{(?:{QUOTED}|{INNER}|[^{{}}\"])*\}}|\[[^\]]*\]|[\w-]+)")
DEFAULTS = {"model": Model(), "regularization": Regularization()}
Places = dict[Path_, tuple[int, str]]  # path -> line (0 of an option), and what stands before a message


class YamlError(ValueError):
    """Text that cannot be read; `place` is its ":LINE" or ":LINE:COLUMN", counted from 1, where they are known."""

    def __init__(self, message: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.place = "".join(f":{number + 1}" for number in (line, column) if number is not None)


@dataclass
class Document:
    """A value, and the line of each of its parts."""

    value: Any
    lines: dict[Path_, int]


def read_text(path: Path) -> str:
    """The text of a spec file; YamlError says what is wrong with it."""
    try:
        # To read a pipe may wait for ever, a device may never end.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise YamlError("must be a file, found a pipe or a device; give the path of a YAML file")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise YamlError("no such file; run this in the folder of a project, or give the file's path") from None
    except OSError as error:
        raise YamlError(f"cannot be read: {error.strerror}; give the path of a YAML file") from None
    if len(raw) > MAX_BYTES:
        raise YamlError(f"must be a YAML file of at most {MAX_BYTES} bytes, got {len(raw)}")
    try:
        return raw.decode("utf-8")  # YAML itself passes over a byte order mark
    except UnicodeDecodeError as error:
        byte = f"byte 0x{raw[error.start]:02x}"
        raise YamlError(f"must be a text file in UTF-8, got {byte}", raw.count(b"\n", 0, error.start)) from None


def parse(text: str) -> Document:
    """Read one YAML document. Raises YamlError where it is none, or is not written out plainly."""
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = MAX_DEPTH
    try:
        for event in yaml.parse(text):
            _refuse_what_is_not_plain(event)
        root = yaml.compose(text)
        lines = dict(_lines(root, ()))
        value = None if root is None else yaml.constructor.construct_object(root, deep=True)
    except MaxDepthExceededError as error:
        raise YamlError(f"must nest at most {MAX_DEPTH} deep", error.problem_mark.line) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        said = " ".join(f"{error.context or ''} {error.problem}".split())
        if "\t" in text[mark.index - mark.column : mark.index + 1]:
            said = "a tab; indent with spaces"
        raise YamlError(f"not YAML: {said}", mark.line, mark.column) from None
    except ReaderError as error:
        raise YamlError(f"not YAML: {str(error).splitlines()[0]}", text.count("\n", 0, error.position)) from None
    except YamlError:
        raise
    except ValueError as error:  # such as a whole number of more than 4300 digits
        raise YamlError(f"a value cannot be read: {error}") from None
    return Document(value, lines)


def _refuse_what_is_not_plain(event: Event) -> None:
    """Raises YamlError for what stands for something else."""
    line, anchor = event.start_mark.line, getattr(event, "anchor", None)
    if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
        raise YamlError("a % directive is not allowed; the file is read as YAML 1.2", line)
    if isinstance(event, AliasEvent):
        raise YamlError(f"an alias (*{anchor}) is not allowed; write the value out", line)
    if anchor:
        raise YamlError(f"an anchor (&{anchor}) is not allowed; write each value out", line)
    if tag := getattr(event, "ctag", None):
        raise YamlError(f"a tag ({tag}) is not allowed; quote what must be text", line)


def _lines(node: Node | None, path: Path_) -> Iterator[tuple[Path_, int]]:
    """The line of each key and of each item. Raises YamlError for a key that is no text."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                found = key.value if key.id == "scalar" else f"a {key.id}"
                raise YamlError(f"a key must be text, got {found}", key.start_mark.line)
            inner = (*path, key.value)
            yield inner, key.start_mark.line + 1
            yield from _lines(value, inner)
    elif isinstance(node, SequenceNode):
        for place, item in enumerate(node.value):
            yield (*path, place), item.start_mark.line + 1
            yield from _lines(item, (*path, place))


class _Representer(RoundTripRepresenter):
    """Writes null as null, where ruamel leaves a blank."""


_Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))


def write(value: dict[str, Any]) -> str:
    """Plain values as YAML 1.2: mappings over several lines, each list on one."""
    yaml, text = YAML(), io.StringIO()
    yaml.Representer = _Representer
    yaml.width = 1_000_000
    yaml.dump(_flow_lists(value), text)
    return text.getvalue()


def scalar(value: str) -> str:
    """A text as YAML reads it as text: plain where it can be, else quoted."""
    try:
        plain = parse(f"{value}: {value} # x").value == {value: value} and not set(value) & set(",[]{}$")
    except YamlError:
        plain = False
    return value if plain else json.dumps(value, ensure_ascii=False)


def flow(value: Any) -> str:
    """Plain values as YAML on one line."""
    if isinstance(value, Mapping):
        pairs = [f"{flow(key)}: {flow(inner)}" for key, inner in value.items()]
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(flow, value))}]"
    return scalar(value) if isinstance(value, str) else json.dumps(value)


def _flow_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _flow_lists(inner) for key, inner in value.items()}
    if isinstance(value, list):
        items = CommentedSeq(_flow_lists(inner) for inner in value)
        items.fa.set_flow_style()
        return items
    return value


def edit(text: str, changes: Mapping[Path_, Any], gone: Iterable[Path_] = ()) -> str:
    """The document with other values at these paths, and without those that are gone; all else stays as it is written.

    Mappings that lead to a changed path are made where they are missing.
    """
    yaml, written = YAML(), io.StringIO()
    yaml.Representer = _Representer
    yaml.preserve_quotes, yaml.width = True, 1_000_000
    document = yaml.load(text) or {}
    for path, value in changes.items():
        inner = document
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = _flow_lists(value)
    for path in gone:
        inner = document
        for part in path[:-1]:
            inner = inner.get(part, {})
        inner.pop(path[-1], None)
    yaml.dump(document, written)
    return written.getvalue()


# -- a spec --


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
    for word, path, value in TO_SET.findall(problem):
        try:
            said = parse(value).value
        except YamlError:
            continue
        pairs = said.items() if isinstance(said, dict) else [("", said)]
        for key, inner in pairs:
            change = f"{path}.{key}".rstrip(".") + f"={flow(inner)}"
            option = f"--set {shlex.quote(change)}"
            both = f"{options.pop()} " if word == "and" and options else ""
            options.append(f"{both}{option}")
    if not options:
        return problem
    return f"{problem}; give it as {', or '.join(dict.fromkeys(options))}"
