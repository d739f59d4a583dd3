"""What each key of the spec must be, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

Node = dict[str, Any]  # a part of a JSON Schema without $ref
Path_ = tuple[str | int, ...]  # where a value stands: ("model", "dropout", 1)
# Key -> how many layers it counts besides the hidden ones, and what they are called together.
LAYERED = {
    "model.hidden": (0, "hidden layers"),
    "model.dropout": (0, "hidden layers"),
    "regularization.l1": (1, "layers (hidden + 1)"),
    "regularization.l2": (1, "layers (hidden + 1)"),
}


def inlined(schema: Node) -> Node:
    """A JSON Schema with each $ref replaced by what it points to."""

    def inline(node: Any) -> Any:
        if isinstance(node, list):
            return [inline(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            node = {**schema["$defs"][node["$ref"].rpartition("/")[2]], **node}
        return {key: inline(value) for key, value in node.items() if key not in ("$ref", "$defs")}

    return dict(inline(schema))


def members(node: Node) -> list[Node]:
    """The alternatives of a union, or the node alone."""
    return list(node.get("anyOf") or node.get("oneOf") or [node])


def kind(member: Node) -> str:
    """What a kind of optimizer, schedule or range is called: the value of its `name`, or its title in lower case."""
    return str(member["properties"].get("name", {}).get("const", member["title"].lower()))


def alternatives(node: Node, plural: bool = False) -> str:
    """ "a number in [0, 1) or a list of such"."""
    words: list[str] = []
    for option in members(node):
        word = noun(option, plural)
        if option.get("items") in members(node):
            word = f"a list of such{', at least one' if option.get('minItems') else ''}"
        if word not in words:
            words.append(word)
    return " or ".join(word for word in words if word == (wider := word.replace("whole ", "")) or wider not in words)


def noun(node: Node, plural: bool = False) -> str:
    """ "a whole number in [1, ∞)", "one of: relu, tanh", "true or false"."""
    if "const" in node:
        return str(node["const"])
    if "enum" in node:
        return f"one of: {', '.join(map(str, node['enum']))}"
    if "anyOf" in node:
        return alternatives(node, plural)
    if node.get("type") == "array":
        least = ", at least one" if node.get("minItems") else ""
        return f"a list of {noun(node.get('items', {}), plural=True)}{least}"
    if "x-key" in node and not _holds_mappings(node):
        return f"a mapping of {node['x-key']} to {noun(node['additionalProperties'])}"
    words = {"integer": "whole number", "number": "number", "string": "text", "object": "mapping", "null": "null"}
    words |= {"boolean": "true or false"}
    word = words.get(str(node.get("type")), "values")
    if word in ("number", "whole number", "mapping"):
        word = f"{word}s" if plural else f"a {word}"
    return f"{word} in {interval(node)}" if interval(node) else word


def interval(node: Node) -> str:
    """[0, 1), (0, ∞); empty for what has no bounds."""
    low, above = node.get("minimum"), node.get("exclusiveMinimum")
    high, below = node.get("maximum"), node.get("exclusiveMaximum")
    if all(bound is None for bound in (low, above, high, below)):
        return ""
    left = f"[{low}" if low is not None else f"({'-∞' if above is None else above}"
    right = f"{high}]" if high is not None else f"{'∞' if below is None else below})"
    return f"{left}, {right}"


def properties(node: Node) -> dict[str, Node]:
    """The keys of a mapping; for a union of mappings those of all its kinds."""
    found: dict[str, Node] = {}
    for member in members(node):
        for name, inner in member.get("properties", {}).items():
            found.setdefault(name, inner)
    return found


def values_of(node: Node) -> Node | None:
    """What a mapping with free keys holds; None for other nodes."""
    extra = node.get("additionalProperties")
    return extra if isinstance(extra, dict) else None


def node_at(path: Sequence[str | int], root: Node) -> Node:
    """The schema of the value at a path; empty where there is none."""
    node = root
    for part in path:
        if isinstance(part, int):
            inside = (member.get("items") for member in members(node))
        else:
            inside = (member.get("properties", {}).get(part) or values_of(member) for member in members(node))
        node = next(filter(None, inside), {})
    return node


def split_path(text: str, root: Node) -> Path_:
    """ "search.space.model.dropout.low" -> its parts, of which the third is model.dropout. Raises ValueError if unknown.

    A whole number at the end is a layer: "model.dropout.1" -> ("model", "dropout", 1).
    """
    node, rest = root, text.split(".")
    path: tuple[str, ...] = ()
    while rest:
        free, known = values_of(node), properties(node)
        if free is not None:  # a key that may itself hold dots, and the part of its value that follows it, if one does
            inside = len(rest) > 1 and rest[-1] in properties(free)
            return (*path, ".".join(rest[:-1]), rest[-1]) if inside else (*path, ".".join(rest))
        if len(rest) == 1 and ".".join(path) in LAYERED and re.fullmatch("0|[1-9][0-9]{0,5}", rest[0]):
            return (*path, int(rest[0]))
        if not known:
            raise ValueError(f"{'.'.join(path)} is one value and has no parts, got {text}")
        if rest[0] not in known:
            raise ValueError(unknown_key((*path, rest[0]), known))
        node, path, rest = known[rest[0]], (*path, rest[0]), rest[1:]
    return path


def unknown_key(path: Path_, known: dict[str, Node]) -> str:
    """ "unknown key model.activaton; did you mean activation?" """
    return f"unknown key {'.'.join(map(str, path))}; {nearest(str(path[-1]), known)}"


def nearest(word: str, known: dict[str, Node] | list[str]) -> str:
    """The nearest of the known words, as a question; all of them if none is near."""
    near = get_close_matches(word, list(known), 1) or [one for one in known if word and f"_{word}" in one]
    return f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"


def _holds_mappings(node: Node) -> bool:
    """Free keys whose values have keys of the spec's own."""
    free = values_of(node)
    return free is not None and bool(members(free)[0].get("properties"))


def leaves(node: Node, path: str = "", of: str = "") -> Iterator[tuple[str, Node, str]]:
    """(dotted path, schema, kind) of every key of the spec, in order; kind is "" but for options of one kind alone."""
    options = [member for member in members(node) if "properties" in member or _holds_mappings(member)]
    if len(options) < len(members(node)) or not options:  # a value of another type may stand there
        yield path, node, of
    for option in options:
        here = kind(option) if len(members(node)) > 1 else of
        for name, inner in option.get("properties", {}).items():
            yield from leaves(inner, f"{path}.{name}".lstrip("."), here)
        free = values_of(option)
        if free is not None and _holds_mappings(option):
            yield from leaves(free, f"{path}.<{option['x-key']}>", here)
