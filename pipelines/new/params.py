"""params.yaml of a new project: this repository's own, filled in from a look at the data."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import backends
from pipelines.new.view import Field, View
from pipelines.spec import load
from pipelines.spec.yaml_file import YamlError, edit, parse

TEMPLATE = Path(__file__).parent / "template"  # its params.yaml is a link to this repository's own
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
    spec = (TEMPLATE / "params.yaml").read_text(encoding="utf-8")
    spec = spec[spec.index("# One experiment") :]  # the lines before are of this repository
    for key, filled in _filled(view, source, name).items():
        spec = re.sub(rf"^ *{key}:.*\n", lambda _, filled=filled: filled, spec, count=1, flags=re.MULTILINE)  # type: ignore[misc]
    spec = edit(spec, view.changes) if view.changes else spec
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "params.yaml").write_text(spec, encoding="utf-8")
        load(Path(scratch) / "params.yaml")
    return spec


def _filled(view: View, source: str, name: str) -> dict[str, str]:
    """Key -> the lines that stand for it; each key's first line in the template is the one that is meant."""
    target = text(view.target[0]) if len(view.target) == 1 else flow(view.target)
    meant = f"{view.meant}, by the target's values" if view.task == "auto" and view.meant else "auto: by the target's values"
    found = {
        "source": line(1, "source", text(source), view.about_source),
        "target": line(1, "target", target, view.about_target),
        "task": line(1, "task", view.task, f"{meant}; regression, binary, multiclass"),
        "markers": line(2, "markers", flow(view.markers), view.about_markers),
        "backend": line(1, "backend", text(backend()), "lightning, keras, reference: the same experiment on each"),
        "experiment": line(1, "experiment", text(name)),
    }
    return {**found, "columns": "".join(_columns(view.fields))} if view.fields else found


def _columns(fields: Sequence[Field]) -> Iterator[str]:
    kinds = "numeric, categorical, boolean, datetime, ignore"
    yield f"{'  columns:':<{AT - 1}} # {kinds}; a column that is left out is taken as it looks\n"
    yield from (line(2, field.name, field.kind, field.note) for field in fields)


def flow(values: Iterable[str]) -> str:
    """A list on one line."""
    return f"[{', '.join(json.dumps(value, ensure_ascii=False) for value in values)}]"
