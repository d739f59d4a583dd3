"""What each key of the spec must be, in words; and what is wrong with one: pydantic's errors as sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import ValidationError

Node = dict[str, Any]  # a part of a JSON Schema without $ref
Path_ = tuple[str | int, ...]  # where a value stands: ("model", "dropout", 1)
# Key -> how many layers it counts besides the hidden ones, and what they are called together.
LAYERED = {
    "model.hidden": (0, "hidden layers"),
    "model.dropout": (0, "hidden layers"),
    "regularization.l1": (1, "layers (hidden + 1)"),
    "regularization.l2": (1, "layers (hidden + 1)"),
}


class SpecError(ValueError):
    """A spec that cannot be; the text has one line a problem."""


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
    """ "search.space.model.dropout.low" -> its parts, of which the third is model.dropout. Raises SpecError if unknown.

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
            raise SpecError(f"{'.'.join(path)} is one value and has no parts, got {text}")
        if rest[0] not in known:
            raise SpecError(unknown_key((*path, rest[0]), known))
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


# -- errors --


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
        return _own(path, str(error["ctx"]["error"]), root)
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


def _own(above: Path_, text: str, root: Node) -> list[Problem]:
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
    return found


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
