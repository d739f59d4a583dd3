"""Pydantic's complaints as sentences: what must hold, what was found, and the nearest key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pipelines.spec.describe import Node, kind, members, must, nearest, properties, resolve, split_path, unknown_key, values_of
from pipelines.spec.yaml_file import Path_, dotted


@dataclass(frozen=True)
class Problem:
    """One sentence, and the place it is about."""

    path: Path_
    text: str


@dataclass(frozen=True)
class _Found:
    """Where a complaint of pydantic stands in the schema."""

    path: Path_
    node: Node
    parent: Node
    union: Path_ | None  # of the union of types that it lies in: its other members complain as well
    kind: str  # of the optimizer, schedule or range that it lies in


def explain(error: ValidationError, root: Node) -> list[Problem]:
    """Each problem once, in the order of the spec."""
    found = [(_locate(e["loc"], root), dict(e)) for e in error.errors(include_url=False)]
    problems: list[Problem] = []
    for where, e in found:
        same = [other.path for other, _ in found if where.union is not None and other.union == where.union]
        if same and len(where.path) < max(map(len, same)):
            continue  # a list with a wrong item is not also a wrong number
        problems += _sentences(where, e, root)
    return list(dict.fromkeys(problems))


def _locate(loc: tuple[str | int, ...], root: Node) -> _Found:
    """Follow pydantic's location through the schema, leaving out the tags of unions, which are no keys."""
    node, parent, parts = root, root, list(loc)
    path: Path_ = ()
    union: Path_ | None = None
    name = ""
    while parts:
        if "oneOf" in node:  # of kinds: the tag is the kind
            name = str(parts.pop(0))
            node = next(member for member in members(node, root) if kind(member) == name)
            continue
        options = [member for member in members(node, root) if member.get("type") != "null"]
        if len(options) > 1:  # of types: the tag is pydantic's word for the type
            tag, union = str(parts.pop(0)), path
            if not parts:
                break  # the sentence is about the union, not about one of its members
            options = [option for option in options if _tagged(option, tag)]
        parent = options[0]
        node, path = _step(parent, parts[0], root), (*path, parts.pop(0))
    return _Found(path, node, parent, union, name)


def _tagged(option: Node, tag: str) -> bool:
    """Is this the member of a union of types that pydantic calls `tag`?"""
    if option.get("type") == "array":
        return tag.startswith("tuple")
    if option.get("type") == "object":
        return tag.startswith("dict") or tag == option.get("title")
    return not tag.startswith(("tuple", "dict")) and tag[:1].islower()


def _step(node: Node, part: str | int, root: Node) -> Node:
    if isinstance(part, int):
        return resolve(node.get("items", {}), root)
    inner = node.get("properties", {}).get(part)
    return resolve(inner, root) if inner is not None else values_of(node, root) or {}


def _sentences(where: _Found, error: dict[str, Any], root: Node) -> list[Problem]:
    path, value, name = where.path, error["input"], dotted(where.path)
    if error["type"] == "extra_forbidden":
        return [Problem(path, _extra(where, root))]
    if error["type"] == "missing":
        return [Problem(path, f"{name} is missing; it must be given")]
    if error["type"] == "union_tag_invalid" and "name" in properties(where.node, root):
        kinds = [kind(member) for member in members(where.node, root)]
        path, value = (*path, "name"), error["input"]["name"]
        return [Problem(path, _wrong(dotted(path), f"must be one of: {', '.join(kinds)}", value, kinds))]
    if error["type"] == "value_error":
        return [_own(where, line, root) for line in str(error["ctx"]["error"]).splitlines()]
    if error["type"] == "invalid_key":
        return [Problem(path, f"a key must be text, got {shown(path[-1])}")]
    text = _wrong(name, must(where.node, root, value), value, where.node.get("enum", []))
    return [Problem(path, f"{text}{_way_out(where.node, value, name)}")]


def _extra(where: _Found, root: Node) -> str:
    """The sentence for a key that does not belong here."""
    options = where.parent.get("properties", {})
    if where.kind and "name" in options:
        return f"{dotted(where.path)} is not an option of {where.kind}; {where.kind} takes " + ", ".join(
            option for option in options if option != "name"
        )
    return unknown_key(where.path, options)


def _wrong(name: str, predicate: str, value: object, known: list[str]) -> str:
    near = nearest(value, known) if isinstance(value, str) and known else ""
    return f"{name} {predicate}, got {shown(value)}" + (f"; {near}" if near.startswith("did") else "")


def _way_out(node: Node, value: object, name: str) -> str:
    if value is None and node.get("type") == "object":
        return f"; leave {name} out to keep its defaults"
    if isinstance(value, str) and node.get("type") in ("number", "integer", "boolean"):
        return "; write it without quotes" if _plain(value) else ""
    return ""


def _plain(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("true", "false")
    return True


def _own(where: _Found, line: str, root: Node) -> Problem:
    """A sentence of the models' own validators, which opens with the key that it is about, relative to the model."""
    key = line.split(" ", 1)[0].rstrip(":")
    inner = split_path(key, root) if where.path == () else (key,)
    return Problem((*where.path, *inner), f"{dotted(where.path)}.{line}".lstrip("."))


def shown(value: object) -> str:
    """A value as it stands in a message: short, and as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    text = f"[{', '.join(map(shown, value))}]" if isinstance(value, list | tuple) else repr(value)
    if not isinstance(value, str | int | float | list | tuple):
        text = f"{value} (a {type(value).__name__})"
    return text if len(text) <= 60 else f"{text[:57]}..."
