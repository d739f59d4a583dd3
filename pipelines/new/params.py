"""params.yaml of a new project: every key that people change, with a comment each, filled from a look at the data."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import backends
from pipelines.new.params_text import DATA, HEAD, REST, SPELLINGS
from pipelines.spec import load
from pipelines.spec.yaml_file import YamlError, parse

AT = 30  # column of a comment
WIDTH = 130


def line(depth: int, key: str, value: object, comment: str = "") -> str:
    """`key: value  # comment`, in YAML."""
    written = f"{'  ' * depth}{text(key)}: {value}"
    return f"{written:<{AT - 1}} # {comment}\n" if comment else f"{written}\n"


def text(value: str) -> str:
    """A text as YAML reads it as text: plain where it can be, else quoted."""
    try:
        plain = parse(f"{value}: {value} # x").value == {value: value} and not set(value) & set(",[]{}$")
    except YamlError:
        plain = False
    return value if plain else json.dumps(value, ensure_ascii=False)


def one_line(words: str, most: int = 90) -> str:
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


@dataclass(frozen=True)
class Field:
    """A column: what it holds, and what a newcomer would want to know about it."""

    name: str
    kind: str
    note: str = ""


@dataclass(frozen=True)
class Seen:
    """What params.yaml tells of the data."""

    target: tuple[str, ...]
    task: str  # as the spec is to say it
    meant: str  # what auto stands for
    about_source: str
    about_target: str
    fields: Sequence[Field]
    markers: Sequence[str] = ("",)


def seen(data: Path, target: Sequence[str], task: str) -> Seen:
    """Look at a file. Raises DataError for one that cannot be used."""
    import csv

    with data.open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
    return Seen(tuple(target), task, "multiclass", f"{len(header)} columns", "", [])


def written(seen: Seen, source: str, name: str) -> str:
    """params.yaml. It was read again by the loader, as every command does."""
    known = "lightning, keras, reference: the same experiment on each"
    rest = REST.replace("<backend>\n", line(1, "backend", text(backend()), known))
    rest = rest.replace("<experiment>\n", line(1, "experiment", text(name)))
    spec = f"{HEAD}data:\n{''.join(_data(seen, source))}\n{rest}"
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "params.yaml").write_text(spec, encoding="utf-8")
        load(Path(scratch) / "params.yaml")
    return spec


def _data(seen: Seen, source: str) -> Iterator[str]:
    target = text(seen.target[0]) if len(seen.target) == 1 else flow(seen.target)
    meant = f"{seen.meant}, by the target's values" if seen.task == "auto" else "auto: by the target's values"
    yield line(1, "source", text(source), seen.about_source)
    yield line(1, "target", target, seen.about_target)
    yield line(1, "task", seen.task, f"{meant}; regression, binary, multiclass")
    yield from _columns(seen.fields)
    yield SPELLINGS
    yield line(2, "markers", flow(seen.markers), "texts of a cell that mean no value")
    yield DATA


def _columns(fields: Sequence[Field]) -> Iterator[str]:
    kinds = "numeric, categorical, boolean, datetime, ignore; a column that is left out is taken as it looks"
    if not fields:
        yield line(1, "columns", "{}", f"column or pattern: {kinds}")
        return
    yield line(1, "columns", "", kinds).replace(":  ", ": ")
    for field in fields:
        yield line(2, field.name, field.kind, one_line(field.note))


def flow(values: Iterable[str]) -> str:
    """A list on one line."""
    return f"[{', '.join(json.dumps(value, ensure_ascii=False) for value in values)}]"
