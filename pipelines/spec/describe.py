"""What each key of the spec must be, in words. Errors, the reference table and the JSON Schema all come from the models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

Node = dict[str, Any]  # a part of a JSON Schema
# Key -> how many layers it counts besides the hidden ones, and what they are called together.
LAYERED = {
    "model.hidden": (0, "hidden layers"),  # first: it says how many layers there are
    "model.dropout": (0, "hidden layers"),
    "regularization.l1": (1, "layers (hidden + 1)"),
    "regularization.l2": (1, "layers (hidden + 1)"),
}

JSON_TYPES = {
    "number": (int, float), "integer": (int,), "string": (str,), "array": (list, tuple), "object": (dict,),
    "null": (type(None),), "boolean": (bool,),
}  # fmt: skip


def resolve(node: Node, root: Node) -> Node:
    """The node that a $ref points to; the node itself if it is none."""
    while "$ref" in node:
        node = {**root["$defs"][node["$ref"].rsplit("/", 1)[-1]], **{k: v for k, v in node.items() if k != "$ref"}}
    return node


def members(node: Node, root: Node) -> list[Node]:
    """The alternatives of a union, or the node alone."""
    alternatives = node.get("anyOf") or node.get("oneOf") or [node]
    return [resolve(alternative, root) for alternative in alternatives]


def kind(member: Node) -> str:
    """What a kind of optimizer, schedule or range is called: the value of its `name`, or its title in lower case."""
    return str(member["properties"].get("name", {}).get("const", member["title"].lower()))


def fits(node: Node, value: object) -> bool:
    """Is the value of the node's type, whatever its range?"""
    wanted = node.get("type")
    if wanted is None:
        return True
    if isinstance(value, bool):
        return bool(wanted == "boolean")
    return isinstance(value, JSON_TYPES[wanted])


def must(node: Node, root: Node, value: object) -> str:
    """The predicate that `value` broke: "must lie in [0, 1)"."""
    options = members(node, root)
    if value == "" and any("minLength" in option for option in options):
        return "must not be empty"
    fitting = [option for option in options if fits(option, value)]
    if len(fitting) == 1 and not any("const" in option or "enum" in option for option in options):
        options = fitting
    if len(options) == 1 and fitting and interval(options[0]):
        return f"must lie in {interval(options[0])}"
    return f"must be {alternatives(options, root)}"


def alternatives(options: list[Node], root: Node, plural: bool = False) -> str:
    """ "a number in [0, 1) or a list of such"."""
    words: list[str] = []
    for option in options:
        word = noun(option, root, plural)
        if option.get("type") == "array" and option.get("items") in options:
            word = "a list of such"
        if word not in words:
            words.append(word)
    return " or ".join(word for word in words if word == (wider := word.replace("whole ", "")) or wider not in words)


def noun(node: Node, root: Node, plural: bool = False) -> str:
    """ "a whole number in [1, ∞)", "one of: relu, tanh", "true or false"."""
    node = resolve(node, root)
    if "const" in node:
        return str(node["const"])
    if "enum" in node:
        return f"one of: {', '.join(map(str, node['enum']))}"
    if "anyOf" in node:
        return alternatives(members(node, root), root, plural)
    if node.get("type") == "array":
        least = ", at least one" if node.get("minItems") else ""
        return f"a list of {noun(node.get('items', {}), root, plural=True)}{least}"
    if "x-key" in node and not _holds_mappings(node, root):
        return f"a mapping of {node['x-key']} to {noun(node['additionalProperties'], root)}"
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


def properties(node: Node, root: Node) -> dict[str, Node]:
    """The keys of a mapping; for a union of mappings those of all its kinds."""
    found: dict[str, Node] = {}
    for member in members(resolve(node, root), root):
        for name, inner in member.get("properties", {}).items():
            found.setdefault(name, inner)
    return found


def values_of(node: Node, root: Node) -> Node | None:
    """What a mapping with free keys holds; None for other nodes."""
    extra = resolve(node, root).get("additionalProperties")
    return resolve(extra, root) if isinstance(extra, dict) else None


def split_path(text: str, root: Node) -> tuple[str | int, ...]:
    """ "search.space.model.dropout.low" -> its parts, of which the third is model.dropout. Raises ValueError if unknown.

    A whole number at the end is a layer: "model.dropout.1" -> ("model", "dropout", 1).
    """
    node, rest = root, text.split(".")
    path: tuple[str, ...] = ()
    while rest:
        free, known = values_of(node, root), properties(node, root)
        if free is not None:
            return (*path, *_free_key(rest, free, root))
        if len(rest) == 1 and ".".join(path) in LAYERED and re.fullmatch("0|[1-9][0-9]{0,5}", rest[0]):
            return (*path, int(rest[0]))
        if not known:
            raise ValueError(f"{'.'.join(path)} is one value and has no parts, got {text}")
        if rest[0] not in known:
            raise ValueError(unknown_key((*path, rest[0]), known))
        node, path, rest = resolve(known[rest[0]], root), (*path, rest[0]), rest[1:]
    return path


def _free_key(rest: list[str], values: Node, root: Node) -> tuple[str, ...]:
    """A key that may itself hold dots, and the part of its value that follows it, if one does."""
    if len(rest) > 1 and rest[-1] in properties(values, root):
        return ".".join(rest[:-1]), rest[-1]
    return (".".join(rest),)


def unknown_key(path: tuple[str | int, ...], known: dict[str, Node]) -> str:
    """ "unknown key model.activaton; did you mean activation?" """
    return f"unknown key {'.'.join(map(str, path))}; {nearest(str(path[-1]), known)}"


def nearest(word: str, known: dict[str, Node] | list[str]) -> str:
    """The nearest of the known words, as a question; all of them if none is near."""
    near = get_close_matches(word, list(known), 1)
    return f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"


def _holds_mappings(node: Node, root: Node) -> bool:
    """Free keys whose values have keys of the spec's own."""
    free = values_of(node, root)
    return free is not None and bool(members(free, root)[0].get("properties"))


def leaves(root: Node) -> Iterator[tuple[str, Node, str]]:
    """(dotted path, schema, kind) of every key of the spec, in order; kind is "" but for options of one kind alone."""
    yield from _leaves(root, root, "", "")


def _leaves(node: Node, root: Node, path: str, of: str) -> Iterator[tuple[str, Node, str]]:
    alternatives = members(node, root)
    options = [member for member in alternatives if "properties" in member or _holds_mappings(member, root)]
    if len(options) < len(alternatives) or not options:  # a value of another type may stand there
        yield path, node, of
    for option in options:
        here = kind(option) if len(alternatives) > 1 else of
        for name, inner in option.get("properties", {}).items():
            yield from _leaves(resolve(inner, root), root, f"{path}.{name}".lstrip("."), here)
        free = values_of(option, root)
        if free is not None and _holds_mappings(option, root):
            yield from _leaves(free, root, f"{path}.<{option['x-key']}>", here)
