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
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, DocumentStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
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
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = MAX_DEPTH
    document = Document()
    try:
        document.faults += _forbidden(yaml, text)
        if not document.faults:
            _Builder(yaml, document).build(yaml.compose(text))
    except MaxDepthExceededError as error:
        raise YamlError(f"must nest at most {MAX_DEPTH} deep", _line(error.problem_mark)) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(f"not YAML: {_syntax(error, text)}", _line(mark), mark.column + 1 if mark else None) from None
    except ReaderError as error:
        raise YamlError(f"not YAML: {str(error).splitlines()[0]}", text.count("\n", 0, error.position) + 1) from None
    return document


def _forbidden(yaml: YAML, text: str) -> Iterator[tuple[int, str]]:
    """What is no value of its own, from the parser's events: nothing has been built from them yet."""
    documents = 0
    for event in yaml.parse(text):
        line, anchor = _line(event.start_mark) or 0, getattr(event, "anchor", None)
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if event.version or event.tags:
                yield line, "a % directive is not allowed; the file is read as YAML 1.2"
            if documents > 1:
                raise YamlError("must hold one document, got a second", line)
        elif isinstance(event, AliasEvent):
            yield line, f"an alias (*{anchor}) is not allowed; write the value out"
        elif anchor:
            yield line, f"an anchor (&{anchor}) is not allowed; write each value out"
        elif tag := getattr(event, "ctag", None):
            yield line, f"a tag ({tag}) is not allowed; quote what must be text"


def _line(mark: Any) -> int | None:
    return mark.line + 1 if mark else None


def _syntax(error: MarkedYAMLError, text: str) -> str:
    """What the parser says, in one line."""
    mark, lines = error.problem_mark, text.split("\n")
    if mark is not None and mark.line < len(lines) and "\t" in lines[mark.line][: mark.column + 1]:
        return "a tab; indent with spaces"
    said = " ".join(part for part in (error.context, error.problem) if part)
    return " ".join(said.split()) or "the text cannot be read"


class _Builder:
    """Plain values from the parser's nodes, which know their lines."""

    def __init__(self, yaml: YAML, document: Document) -> None:
        self._construct = yaml.constructor.construct_object
        self._document = document

    def build(self, root: Node | None) -> None:
        """The whole document."""
        self._document.value = None if root is None else self._value(root, ())

    def _value(self, node: Node, path: Path_) -> Any:
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self._value(item, (*path, place)) for place, item in enumerate(node.value)]
        return self._scalar(node)

    def _scalar(self, node: Node) -> Any:
        try:
            return self._construct(node)
        except ValueError:  # such as a whole number of more than 4300 digits
            self._fault(node, f"a value that cannot be read: {node.value[:40]}")
            return None

    def _mapping(self, node: MappingNode, path: Path_) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for named, value in node.value:
            key = self._key(named, path)
            inner = (*path, key)
            if key in found:
                first = self._document.lines[inner]
                self._fault(named, f"duplicate key {dotted(inner)}; it stands in line {first} already")
                continue
            self._document.lines[inner] = named.start_mark.line + 1
            found[key] = self._value(value, inner)
        return found

    def _key(self, node: Node, path: Path_) -> str:
        key = self._scalar(node) if isinstance(node, ScalarNode) else self._value(node, (*path, "(a key)"))
        if not isinstance(key, str):
            self._fault(node, f"a key must be text, got {key!r}" + (f" in {dotted(path)}" if path else ""))
        return str(key)

    def _fault(self, node: Node, sentence: str) -> None:
        self._document.faults.append((node.start_mark.line + 1, sentence))


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
