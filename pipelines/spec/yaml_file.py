"""Strict YAML 1.2 with places: the values that DVC would read, and the line of each, so that an error can point.

Duplicate keys, anchors, aliases (which can expand to gigabytes), tags and YAML versions are refused here, from the
parser's events, before anything is built from them.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

Path_ = tuple[str | int, ...]  # where a value stands: ("model", "dropout", 1)

MAX_BYTES = 1_000_000
MAX_DEPTH = 32  # the spec needs 5; more only serves to exhaust the stack


class YamlError(ValueError):
    """Text that cannot be read; `line` and `column` count from 1 where they are known."""

    def __init__(self, message: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.line, self.column = line, column


@dataclass
class Document:
    """A value, the line of each of its parts, and what is wrong with how it is written: (line, sentence)."""

    value: Any = None
    lines: dict[Path_, int] = field(default_factory=dict)
    faults: list[tuple[int, str]] = field(default_factory=list)


def read_text(path: Path) -> str:
    """The text of a spec file; YamlError says what is wrong with it."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise YamlError("no such file; run this in the folder of a project, or give the file's path") from None
    except IsADirectoryError:
        raise YamlError("is a folder; give the path of a YAML file") from None
    except OSError as error:
        raise YamlError(f"cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise YamlError(f"must be a YAML file of at most {MAX_BYTES} bytes, got {len(raw)}")
    if b"\0" in raw:
        raise YamlError("must be a text file in UTF-8, got binary data (a NUL byte)")
    try:
        return raw.decode("utf-8")  # YAML itself passes over a byte order mark
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise YamlError(f"must be a text file in UTF-8, got byte 0x{raw[error.start]:02x}", line) from None


def parse(text: str) -> Document:
    """Read one YAML document. Raises YamlError where it is not YAML; lesser faults are collected in the document."""
    try:
        return _Builder(text).document
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise YamlError(f"not YAML: {_syntax(error, text)}", *place) from None
    except YAMLError as error:
        position = getattr(error, "position", None)
        line = None if position is None else text.count("\n", 0, position) + 1
        raise YamlError(f"not YAML: {str(error).splitlines()[0]}", line) from None


def _syntax(error: MarkedYAMLError, text: str) -> str:
    """What the parser says, in one line."""
    mark = error.problem_mark
    if mark is not None and text.split("\n")[mark.line : mark.line + 1]:
        line = text.split("\n")[mark.line]
        if "\t" in line[: mark.column + 1]:
            return "a tab; indent with spaces"
    said = " ".join(part for part in (error.context, error.problem) if part)
    return " ".join(said.split()) or "the text cannot be read"


class _Builder:
    """Builds plain values from the parser's events, noting lines and faults."""

    def __init__(self, text: str) -> None:
        self._yaml = YAML(typ="safe", pure=True)
        self._events: Iterator[Event] = iter(self._yaml.parse(text))
        self.document = Document()
        self._run()

    def _run(self) -> None:
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise YamlError("must hold one document, got a second", event.start_mark.line + 1)
                if event.version or event.tags:
                    self._fault(event, "a % directive is not allowed; the file is read as YAML 1.2")
                self.document.value = self._value(next(self._events), ())

    def _value(self, event: Event, path: Path_) -> Any:
        if len(path) > MAX_DEPTH:
            raise YamlError(f"must nest at most {MAX_DEPTH} deep", event.start_mark.line + 1)
        self.document.lines.setdefault(path, event.start_mark.line + 1)
        self._refuse_references(event, path)
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(path)
        return self._scalar(event) if isinstance(event, ScalarEvent) else None

    def _mapping(self, path: Path_) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                break
            key = self._key(event, path)
            inner = (*path, key)
            if key in found:
                first = self.document.lines[inner]
                self._fault(event, f"duplicate key {dotted(inner)}; it stands in line {first} already")
                self._value(next(self._events), inner)
                continue
            self.document.lines[inner] = event.start_mark.line + 1
            found[key] = self._value(next(self._events), inner)
        return found

    def _key(self, event: Event, path: Path_) -> str:
        key = self._value(event, (*path, "(a key)")) if not isinstance(event, ScalarEvent) else self._scalar(event)
        self._refuse_references(event, path)
        if isinstance(key, str):
            return key
        self._fault(event, f"a key must be text, got {key!r}" + (f" in {dotted(path)}" if path else ""))
        return str(key)

    def _sequence(self, path: Path_) -> list[Any]:
        found: list[Any] = []
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                break
            found.append(self._value(event, (*path, len(found))))
        return found

    def _scalar(self, event: ScalarEvent) -> Any:
        tag = self._yaml.resolver.resolve(ScalarNode, event.value, event.implicit)
        try:
            return self._yaml.constructor.construct_object(ScalarNode(tag, event.value, event.start_mark, event.end_mark))
        except ValueError:  # such as a whole number of more than 4300 digits
            self._fault(event, f"a value that cannot be read: {event.value[:40]}")
            return None

    def _refuse_references(self, event: Event, path: Path_) -> None:
        where = dotted(path) or "the file"
        anchor, tag = getattr(event, "anchor", None), getattr(event, "ctag", None)
        if isinstance(event, AliasEvent):
            self._fault(event, f"an alias (*{anchor}) is not allowed in {where}; write the value out")
        elif anchor:
            self._fault(event, f"an anchor (&{anchor}) is not allowed in {where}; write each value out")
        elif tag:
            self._fault(event, f"a tag ({tag}) is not allowed in {where}; quote what must be text")

    def _fault(self, event: Event, sentence: str) -> None:
        self.document.faults.append((event.start_mark.line + 1, sentence))


def dotted(path: Path_) -> str:
    """("model", "dropout", 1) -> "model.dropout[1]"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


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
