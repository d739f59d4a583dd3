"""params.yaml of a new project: this repository's own, filled in from the look that `deltarule data` shows."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import backends
from pipelines.data.columns import DataError
from pipelines.data.look import ColumnLook, Look, listed, look, shown
from pipelines.spec import DataSpec, Experiment, load, models_schema
from pipelines.spec.file import as_option, known_path
from pipelines.spec.yaml_file import edit
from pipelines.spec.yaml_file import scalar as text

TEMPLATE = Path(__file__).parent / "template"  # its params.yaml is a link to this repository's own
AT = 30  # column of a comment
FIELDS = 80  # of more columns, params.yaml has those that are remarkable
NAMED = 5  # categories and classes that a comment names
# What people write where they have no number; among codes of countries NA is one.
NO_VALUE = {"na", "n/a", "#n/a", "nan", "null", "none", "nil", "-", "--", "?", ".", "missing", "unknown"}


class ProjectError(ValueError):
    """A project that cannot be made as asked; nothing was written."""

    exit_code = 2


@dataclass(frozen=True)
class View:
    """What was seen in a file. `block` is the spec's data block, with the markers that stand in the columns `gaps`."""

    found: Look
    block: DataSpec
    gaps: tuple[str, ...]
    changes: Mapping[str, object]  # dotted path below data -> value, as asked for


def view(files: Mapping[str, Path], target: Sequence[str], task: str, changes: Mapping[str, object]) -> View:
    """Look at the files, one a part.

    Raises ProjectError, SpecError or DataError for one that no spec could use, or not with these changes.
    """
    for path in changes:
        if not path.startswith("data."):
            raise ProjectError(f"--set {path}: must be a path below data, such as data.format.encoding; params.yaml has the rest")
        option = path.split(".")[1]
        if option in ("source", "target", "task"):
            raise ProjectError(f"--set {path}: must be given as --{option.replace('source', 'data')}")
    named = target[0] if len(target) == 1 else list(target)
    places = {part: str(file) for part, file in files.items()}
    stated = {"data.source": places if len(places) > 1 else places["train"], "data.target": named, "data.task": task}
    block = Experiment().override({**stated, **changes}).data
    try:
        found = look(block)
    except DataError as error:
        raise DataError(as_option(str(error))) from None
    words = {column.name: [word for word in column.odd if word.lower() in NO_VALUE] for column in found.columns}
    gaps = tuple(name for name, there in words.items() if there)
    if gaps:
        markers = (*block.missing.markers, *sorted({word for there in words.values() for word in there}))
        block = block.model_copy(update={"missing": block.missing.model_copy(update={"markers": markers})})
        found = look(block)
    if found.refused or not found.task:  # a target that is not there, has no values or does not suit --task
        first = found.refused or f"{files['train']}: the file has no rows"
        faults = [first, *(problem for problem in found.problems if problem != first)]
        told = listed(found.source, list(map(as_option, faults)))
        raise ProjectError(told.replace("--set data.task=", "--task "))
    return View(found, block, gaps, changes)


def written(view: View, places: Mapping[str, str], name: str) -> str:
    """params.yaml, read again by the loader as every command will: part -> path in the project, and the project's name."""
    spec = (TEMPLATE / "params.yaml").read_text(encoding="utf-8")
    spec = spec[spec.index("# One experiment") :]  # the lines before are of this repository
    for key, filled in _filled(view, places, name).items():  # each key's first line is the one that is meant
        indent = filled[: len(filled) - len(filled.lstrip())]
        key_line = rf"^{indent}{key}:.*\n"
        spec = re.sub(key_line, lambda _, filled=filled: filled, spec, count=1, flags=re.MULTILINE)  # type: ignore[misc]
    leaves: dict[tuple[str | int, ...], Any] = {}
    for path, value in view.changes.items():
        leaves.update(_leaves(known_path(path, models_schema()), value))
    leaves.pop(("data", "missing", "markers"), None)  # which are filled in
    spec = edit(spec, leaves) if leaves else spec
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "params.yaml").write_text(spec, encoding="utf-8")
        load(Path(scratch) / "params.yaml")
    return spec


def _leaves(path: tuple[str | int, ...], value: object) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """One value at a time, so that what stands beside it in params.yaml stays."""
    if not isinstance(value, dict):
        yield path, value
        return
    for key, below in value.items():
        yield from _leaves((*path, key), below)


def _filled(view: View, places: Mapping[str, str], name: str) -> dict[str, str]:
    """Key -> the lines that stand for it."""
    parts = ", ".join(f"{part}: {text(place)}" for part, place in places.items())
    source = f"{{{parts}}}" if len(places) > 1 else text(places["train"])
    found, block = view.found, view.block
    repeated = f"; {found.duplicates} rows repeat an earlier one" if found.duplicates else ""
    target = text(block.targets[0]) if len(block.targets) == 1 else flow(block.targets)
    meant = f"{found.task}, by the target's values" if block.task == "auto" else "auto: by the target's values"
    no_value = "texts of a cell that mean no value"
    markers = f"{no_value}; found among the numbers of {', '.join(view.gaps)}" if view.gaps else f"{no_value}, such as NA or ?"
    lines = {
        "source": line(1, "source", source, f"{found.rows} rows, {len(found.columns)} columns{repeated}"),
        "target": line(1, "target", target, _about_target(found)),
        "task": line(1, "task", block.task, f"{meant}; regression, binary, multiclass"),
        "markers": line(2, "markers", flow(block.missing.markers), markers),
        "backend": line(1, "backend", text(backend()), "lightning, keras, reference: the same experiment on each"),
        "experiment": line(1, "experiment", text(name)),
    }
    if found.guessed and block.format.header == "auto":
        lines["header"] = line(2, "header", "false", "the first line was taken for a row")
    columns = "".join(_columns(found))
    if columns:
        kinds = "numeric, categorical, boolean, datetime, ignore"
        head = f"{'  columns:':<{AT - 1}} # {kinds}; a column that is left out is taken as it looks\n"
        lines["columns"] = head + columns
    for key, plain in (("numbers", "1234.5"), ("dates", "2024-05-31")):
        if written := found.written(key):
            head = f"{f'  {key}:':<{AT - 1}} # how they are written, where not as {plain}\n"
            lines[key] = head + "".join(line(2, name, how) for name, how in written.items())
    return lines


def _about_target(found: Look) -> str:
    if found.classes:
        most = [f"{name} {rows}" for name, rows in [*found.classes.items()][:NAMED]]
        more = f", and {len(found.classes) - NAMED} more" if len(found.classes) > NAMED else ""
        return f"{len(found.classes)} classes, rows of each: {', '.join(most)}{more}"
    spread = [_spread(column) for column in found.columns if column.name in found.targets]
    return "; ".join(filter(None, spread))


def _columns(found: Look) -> Iterator[str]:
    """A line a column: what it holds, and what a newcomer would want to know about it."""
    warned = {suspicion.column: suspicion.why for suspicion in found.suspicions}
    few = len(found.columns) <= FIELDS
    for column in found.columns:
        remarkable = column.kind == "ignore" or column.problem or column.name in warned
        if column.name in found.targets or not (few or remarkable):
            continue
        odd = f"fix: it holds {', '.join(map(repr, column.odd[:NAMED]))} too" if column.problem and column.odd else ""
        missing = f"{column.missing} missing" if column.missing and column.kind != "ignore" else ""
        notes = [odd, column.note, warned.get(column.name, ""), missing, _spread(column)]
        yield line(2, column.name, column.kind, "; ".join(filter(None, notes)))


def _spread(column: ColumnLook) -> str:
    """Its range, or its most frequent values."""
    if column.kind == "ignore":
        return f"such as {column.example}" if column.example else ""
    if column.least is not None and column.greatest is not None:
        return f"{shown(column.kind, column.least)} to {shown(column.kind, column.greatest)}"
    names = [name for name, _ in column.frequent[:NAMED]]
    return f"{column.distinct}: {', '.join(names)}{', ...' if column.distinct > len(names) else ''}"


def backend() -> str:
    """The first of the registry, beside the reference, whose distributions are installed; nothing is imported."""
    for name, (_, package) in backends.REGISTRY.items():
        distribution, _, extra = package.removesuffix("]").partition("[")
        try:
            needed = [r for r in requires(distribution) or () if r.replace("'", '"').endswith(f'extra == "{extra}"')]
            if name != "reference" and [version(re.split(r"[^\w.-]", requirement)[0]) for requirement in needed]:
                return name
        except PackageNotFoundError:
            continue
    return "reference"


# -- YAML --


def line(depth: int, key: str, value: object, comment: str = "") -> str:
    """`key: value  # comment`; the comment without line ends and control characters, and not without end."""
    start = f"{'  ' * depth}{text(key)}: {value}"
    clean = " ".join("".join(c if c.isprintable() else " " for c in comment).split())
    clean = clean if len(clean) <= 100 else f"{clean[:97]}..."
    return f"{start:<{AT - 1}} # {clean}\n" if clean else f"{start}\n"


def flow(values: Iterable[str]) -> str:
    """A list on one line."""
    return f"[{', '.join(json.dumps(value, ensure_ascii=False) for value in values)}]"
