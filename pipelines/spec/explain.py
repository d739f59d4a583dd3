"""Pydantic's errors as sentences: what must hold, what was found, and the nearest key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from pipelines.spec.describe import Node, Path_, alternatives, kind, members, nearest, node_at, split_path, unknown_key


class Problem(NamedTuple):
    """One sentence, and the place it is about."""

    path: Path_
    text: str


def explain(error: ValidationError, raw: Mapping[str, Any], root: Node) -> list[Problem]:
    """What is wrong with `raw`, each problem once, in the order of the spec."""
    found = dict.fromkeys(problem for one in error.errors(include_url=False) for problem in _problems(dict(one), raw, root))
    deeper = {path[:end] for path, _ in found for end in range(len(path))}
    return [problem for problem in found if problem.path not in deeper]  # a list with a wrong item is not also a wrong number


def unusable_text(value: object, path: Path_) -> Iterator[Problem]:
    """Half a character (a surrogate) anywhere, control characters in a key that is no name of the data."""
    if isinstance(value, str) and not value.isascii() and re.search("[\ud800-\udfff]", value):
        yield Problem(path, f"a text must hold whole characters, got {value!a}")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str) and not key.isprintable() and path[:1] != ("data",):
                yield Problem((*path, key), f"a key must be printable text, got {key!a}")
            else:
                yield from unusable_text(key, (*path, key))
            yield from unusable_text(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from unusable_text(inner, (*path, place))


def _problems(error: dict[str, Any], raw: Mapping[str, Any], root: Node) -> list[Problem]:
    path, value, of = _path(error["loc"], raw), error["input"], error["type"]
    node, name = node_at(path, root), dotted(path)
    if of == "value_error":  # of a validator of the models: each line opens with the key that it is about
        return list(_own(path, str(error["ctx"]["error"]), root))
    if of == "missing":
        path = (*path, error["loc"][-1])
        return [Problem(path, f"{dotted(path)} is missing; it must be given")]
    if of == "extra_forbidden":
        return [Problem(path, _extra(path, error["loc"], root))]
    if of == "invalid_key" or error["loc"][-1] == "[key]":
        return [Problem(path, f"a key must be text, got {shown(path[-1])}")]
    known = [str(word) for word in node.get("enum", [])]
    predicate = f"be {alternatives(node)}"
    if of == "union_tag_invalid":
        path, value, known = (*path, "name"), value["name"], [kind(member) for member in members(node)]
        predicate = f"be one of: {', '.join(known)}"
    elif value == "" and any("minLength" in member for member in members(node)):
        predicate = "not be empty"
    return [Problem(path, f"{dotted(path)} must {predicate}, got {shown(value)}{_way_out(node, value, known, name)}")]


def _path(loc: tuple[Any, ...], raw: Any) -> Path_:
    """Where an error stands: pydantic's location without the types and kinds that it tried, which are no keys."""
    path: Path_ = ()
    for part in loc:
        if (isinstance(raw, Mapping) and part in raw) or (isinstance(raw, list | tuple) and isinstance(part, int)):
            raw, path = raw[part], (*path, part)
    return path


def _own(above: Path_, text: str, root: Node) -> Iterator[Problem]:
    """A problem a line.

    One that opens with no key of the spec goes on with the line before: a name may hold a line end.
    """
    name, found = dotted(above), list[Problem]()
    for line in text.split("\n"):
        line = line if line.startswith(f"{name}.") else f"{name}.{line}".lstrip(".")
        try:
            found.append(Problem(split_path(line.split(" ", 1)[0].rstrip(":"), root), line))
        except ValueError:
            before = found.pop() if found else Problem(above, "")
            rest = line.removeprefix(f"{name}.")
            found.append(Problem(before.path, f"{before.text}\\n{rest}" if before.text else rest))
    yield from found


def _extra(path: Path_, loc: tuple[str | int, ...], root: Node) -> str:
    """The sentence for a key that does not belong here."""
    kinds = [member for member in members(node_at(path[:-1], root)) if "properties" in member]
    tried = [str(part).lower() for part in loc[-2:-1]]
    member = next((member for member in kinds if kind(member) in tried), kinds[0])
    options = dict(member["properties"])
    if options.pop("name", None) is None:
        return unknown_key(path, options)
    return f"{dotted(path)} is not an option of {kind(member)}; {kind(member)} takes {', '.join(options)}"


def _way_out(node: Node, value: object, known: list[str], name: str) -> str:
    if value is None and node.get("type") == "object":
        return f"; leave {name} out to keep its defaults"
    if not isinstance(value, str):
        return ""
    if node.get("type") in ("number", "integer", "boolean"):
        return "; write it without quotes" if re.fullmatch(r"true|false|[+-]?[\d.]+(e[+-]?\d+)?", value) else ""
    near = nearest(value, known)
    return f"; {near}" if near.startswith("did") else ""


def dotted(path: Path_) -> str:
    """("model", "dropout", 1) -> "model.dropout[1]"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


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
