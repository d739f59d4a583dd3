"""Strict YAML 1.2 with places: the values that DVC would read, and the line of each, so that an error can point.

Duplicate keys, anchors, aliases (which can expand to gigabytes), tags and YAML versions are refused before any value is built.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
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

from pipelines.spec.describe import Path_

MAX_BYTES = 1_000_000
MAX_DEPTH = 32  # the spec needs 5; more only serves to exhaust the stack


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
                raise YamlError(f"a key must be text, got {key.value}", key.start_mark.line)
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
