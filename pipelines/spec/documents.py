"""The spec for people and editors: docs/spec.md and docs/params.schema.json, made from the models.

`python -m pipelines.spec.documents` writes both; a test holds them against the models.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

from pipelines.spec.describe import LAYERED, Node, alternatives, kind, leaves, members, properties, resolve, values_of
from pipelines.spec.experiment import models_schema
from pipelines.spec.space import searchable

HEAD = """# params.yaml, key by key

Made from the models by `python -m pipelines.spec.documents`; do not edit.

- The file is YAML 1.2, as DVC reads it: `1e-3` is a number, `no` is text. Unknown and duplicate keys, anchors, aliases and
  tags are refused, and every error names the line.
- A key or a block that is left out has its default. `--set a.b=value` overrides one key for one command.
- `[0, 1)` holds 0 and not 1; `(0, ∞)` holds every number above 0.
"""


def reference(root: Node) -> str:
    """The table of every key: type and range, default, meaning; one section a block."""
    sections = [HEAD]
    for block, node in root["properties"].items():
        about = resolve(node, root).get("description", "")
        rows = {path: leaf for path, leaf in _merged(root).items() if path.split(".")[0] == block}
        sections.append(_table(f"`{block}`", "" if block in rows else about, rows, root))
    return "\n".join(sections)


def _merged(root: Node) -> dict[str, Node]:
    """Path -> schema; an option that several kinds share is one row, which names them."""
    merged: dict[str, Node] = {}
    for path, node, of in leaves(root):
        row = merged.setdefault(path, {**node, "kinds": [], "names": [], "defaults": {}})
        row["kinds"].append(of)
        if "default" in node:
            row["defaults"][of] = node["default"]
        if "const" in node:
            row["names"].append(node["const"])
    return merged


def _table(title: str, about: str, rows: dict[str, Node], root: Node) -> str:
    lines = [f"## {title}", "", *([" ".join(about.split()), ""] if about else [])]
    lines += ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for path, node in rows.items():
        cells = (f"`{path}`", _value(node, root), _default(path, node, root), _meaning(path, node, root))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _value(node: Node, root: Node) -> str:
    if node.get("names"):
        return f"one of: {', '.join(node['names'])}"
    return alternatives(members(node, root), root)


def _default(path: str, node: Node, root: Node) -> str:
    main = _union(path, root)["default"]["name"] if node["kinds"][0] and path.startswith("train.") else ""
    if node["names"]:
        return f"`{main}`"
    defaults = dict(node["defaults"])
    if not defaults:
        return "must be given"
    usual = defaults.get(main, next(iter(defaults.values())))
    others = [f"{of}: {_code(value)}" for of, value in defaults.items() if value != usual]
    return ", ".join([_code(usual), *others])


def _code(value: object) -> str:
    bare = re.sub(r'"((?:[^"\\]|\\.)+)"', lambda text: text[1].replace('\\"', '"'), json.dumps(value, ensure_ascii=False))
    return f"`{bare}`"


def _meaning(path: str, node: Node, root: Node) -> str:
    kinds = [of for of in node["kinds"] if of]
    everywhere = not kinds or len(kinds) == len(members(_union(path, root), root))
    return str(node["description"]) + ("" if everywhere else f" ({', '.join(kinds)})")


def _union(path: str, root: Node) -> Node:
    """The mapping that a key stands in, which has several kinds."""
    block: Node = root
    for part in path.split(".")[:-1]:
        inner = properties(block, root).get(part) or values_of(block, root) or {}
        block = resolve(inner, root)
    return block


def schema() -> Node:
    """The JSON Schema of params.yaml, for editors: a default kind needs no name, and search.space completes the spec's paths."""
    root = copy.deepcopy(models_schema())
    train: dict[str, Any] = root["$defs"]["Train"]["properties"]
    for union in (train["optimizer"], train["schedule"]):
        default = next(member for member in members(union, root) if kind(member) == union["default"]["name"])
        root["$defs"][default["title"]].pop("required")
    space = root["$defs"]["Search"]["properties"]["space"]
    values = space["additionalProperties"]
    space.update(properties=dict.fromkeys(searchable(models_schema()), values), additionalProperties=False)
    space["patternProperties"] = {f"^({'|'.join(map(re.escape, LAYERED))})\\.[0-9]+$": values}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "title": "deltarule experiment spec"}


def documents() -> dict[str, str]:
    """File name -> text."""
    return {
        "spec.md": reference(models_schema()),
        "params.schema.json": json.dumps(schema(), indent=1, ensure_ascii=False) + "\n",
    }


if __name__ == "__main__":
    for name, text in documents().items():
        (Path("docs") / name).write_text(text, encoding="utf-8")
