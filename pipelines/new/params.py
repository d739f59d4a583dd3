"""params.yaml of a new project: every key that people change, with a comment each, filled from a look at the data."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import backends
from pipelines.new.params_text import DATA, HEAD, REST, SPELLINGS
from pipelines.new.view import Field, View
from pipelines.spec import load
from pipelines.spec.yaml_file import YamlError, edit, parse

AT = 30  # column of a comment


def line(depth: int, key: str, value: object, comment: str = "") -> str:
    """`key: value  # comment`, in YAML."""
    written = f"{'  ' * depth}{text(key)}: {value}"
    return f"{written:<{AT - 1}} # {one_line(comment)}\n" if comment else f"{written}\n"


def text(value: str) -> str:
    """A text as YAML reads it as text: plain where it can be, else quoted."""
    try:
        plain = parse(f"{value}: {value} # x").value == {value: value} and not set(value) & set(",[]{}$")
    except YamlError:
        plain = False
    return value if plain else json.dumps(value, ensure_ascii=False)


def one_line(words: str, most: int = 100) -> str:
    """For a comment: no line ends or control characters, and not without end."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return clean if len(clean) <= most else f"{clean[: most - 3]}..."


def backend() -> str:
    """The first of the registry, beside the reference, whose distributions are installed; nothing is imported."""
    names = [name for name in backends.REGISTRY if name != "reference"]
    return next((name for name in names if _installed(backends.REGISTRY[name][1])), "reference")


def _installed(package: str) -> bool:
    """Whether all that a "distribution[extra]" needs is there."""
    distribution, _, extra = package.removesuffix("]").partition("[")
    try:
        needed = [r for r in requires(distribution) or () if r.replace("'", '"').endswith(f'extra == "{extra}"')]
        return bool(needed and [version(re.split(r"[^\w.-]", requirement)[0]) for requirement in needed])
    except PackageNotFoundError:
        return False


def written(view: View, source: str, name: str) -> str:
    """params.yaml, read again by the loader as every command will. `source` is the path in the project, `name` its own."""
    known = "lightning, keras, reference: the same experiment on each"
    rest = REST.replace("<backend>\n", line(1, "backend", text(backend()), known))
    rest = rest.replace("<experiment>\n", line(1, "experiment", text(name)))
    spec = f"{HEAD}data:\n{''.join(_data(view, source))}\n{rest}"
    spec = edit(spec, view.changes) if view.changes else spec
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "params.yaml").write_text(spec, encoding="utf-8")
        load(Path(scratch) / "params.yaml")
    return spec


def _data(view: View, source: str) -> Iterator[str]:
    target = text(view.target[0]) if len(view.target) == 1 else flow(view.target)
    meant = f"{view.meant}, by the target's values" if view.task == "auto" and view.meant else "auto: by the target's values"
    yield line(1, "source", text(source), view.about_source)
    yield line(1, "target", target, view.about_target)
    yield line(1, "task", view.task, f"{meant}; regression, binary, multiclass")
    yield from _columns(view.fields)
    yield SPELLINGS
    yield line(2, "markers", flow(view.markers), view.about_markers)
    yield DATA


def _columns(fields: Sequence[Field]) -> Iterator[str]:
    kinds = "numeric, categorical, boolean, datetime, ignore"
    if not fields:
        yield line(1, "columns", "{}", f"column or pattern: {kinds}; the others: as they look")
        return
    yield f"{'  columns:':<{AT - 1}} # {kinds}; a column that is left out is taken as it looks\n"
    for field in fields:
        yield line(2, field.name, field.kind, field.note)


def flow(values: Iterable[str]) -> str:
    """A list on one line."""
    return f"[{', '.join(json.dumps(value, ensure_ascii=False) for value in values)}]"
