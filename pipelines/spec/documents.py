"""The spec for people and editors: docs/spec.md and docs/params.schema.json, made from the models.

`python -m pipelines.spec.documents` writes both; a test holds them against the models.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from pipelines.spec.describe import LAYERED, Node, alternatives, leaves, members, node_at
from pipelines.spec.experiment import Experiment, models_schema
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
        rows: dict[str, dict[str, Node]] = {}  # path -> kind -> schema: an option that several kinds share is one row
        for path, leaf, of in leaves(node, block):
            rows.setdefault(path, {})[of] = leaf
        about = "" if block in rows else " ".join(node.get("description", "").split())
        lines = [f"## `{block}`", "", *([about, ""] if about else []), "| key | value | default | meaning |"]
        lines.append("| --- | --- | --- | --- |")
        for path, kinds in rows.items():
            cells = _row(path, kinds, node_at(path.split(".")[:-1], root))
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        sections.append("\n".join([*lines, ""]))
    return "\n".join(sections)


def _row(path: str, kinds: dict[str, Node], above: Node) -> tuple[str, ...]:
    """Key, value, default and meaning; `above` is the mapping that it stands in."""
    first = next(iter(kinds.values()))
    main = above["default"]["name"] if "oneOf" in above and "default" in above else ""
    everywhere = "" in kinds or len(kinds) == len(members(above))
    meaning = first["description"] + ("" if everywhere else f" ({', '.join(kinds)})")
    if "const" in first:
        return f"`{path}`", f"one of: {', '.join(node['const'] for node in kinds.values())}", f"`{main}`", meaning
    defaults = {of: node["default"] for of, node in kinds.items() if "default" in node}
    usual = defaults.get(main, next(iter(defaults.values()), None))
    others = [f"{of}: {_code(value)}" for of, value in defaults.items() if value != usual]
    default = ", ".join([_code(usual), *others]) if defaults else "must be given"
    return f"`{path}`", alternatives(first), default, meaning


def _code(value: object) -> str:
    bare = re.sub(r'"((?:[^"\\]|\\.)+)"', lambda text: text[1].replace('\\"', '"'), json.dumps(value, ensure_ascii=False))
    return f"`{bare}`"


def schema() -> Node:
    """The JSON Schema of params.yaml, for editors: a default kind needs no name, and search.space completes the spec's paths."""
    root = Experiment.model_json_schema()
    train = root["$defs"]["Train"]["properties"]
    for union in (train["optimizer"], train["schedule"]):
        default = union["discriminator"]["mapping"][union["default"]["name"]].rpartition("/")[2]
        root["$defs"][default].pop("required")
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
