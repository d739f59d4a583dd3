"""Where rows come from: a bundled set, a text file with delimiters, a Parquet file, OpenML, or a file a part.

    Source = read(block, base)

Everything from a file to a `Source` stands in this folder: text.py (bytes, encodings, headers), delimited.py (streaming into
spool.py), parquet.py, openml.py; words.py and kinds.py (what a column holds); joined.py (one table of several files).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.bundled import BUNDLED, read_bundled
from pipelines.data.columns import Source
from pipelines.data.table import DataError
from pipelines.spec import DataSpec
from pipelines.spec.blocks import DELIMITED, FILES, Kind
from pipelines.spec.describe import nearest

if TYPE_CHECKING:
    from pipelines.data.joined import File, Joined


def read(block: DataSpec, base: Path | None = None) -> Source:
    """The rows that `data.source` names; a relative path is taken from `base`.

    Raises DataError with file, row and column for what cannot be read, or holds what its kind does not allow.
    """
    if block.source in BUNDLED:
        return read_bundled(str(block.source))
    table = join(block, base)
    check_named(block, table)
    judged = {name: table.judged(name) for name in table.names}
    for name, found in judged.items():
        if found.problem:
            raise DataError(table.told(name, found))
    return table.source(judged, {name: found.kind for name, found in judged.items()}, table.targets)


@dataclass(frozen=True)
class Survey:
    """A source that may not be what the spec asks for: a column that `read` would refuse is text, and its problem is told."""

    source: Source
    stated: frozenset[str] = frozenset()  # columns whose kind data.columns gives
    problems: Mapping[str, str] = field(default_factory=dict)  # column -> what `read` would say
    odd: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # column -> the cells that break its kind
    meant: Mapping[str, Kind] = field(default_factory=dict)  # column -> the kind that they break


def survey(block: DataSpec, base: Path | None = None) -> Survey:
    """As `read`, but a column or a target that it would refuse is told of. Raises DataError where there is no table."""
    if block.source in BUNDLED:
        return Survey(read_bundled(str(block.source)))
    table = join(block, base)
    judged = {name: table.judged(name) for name in table.names}
    wrong = {name: found for name, found in judged.items() if found.problem}
    problems = {name: table.told(name, found) for name, found in wrong.items()}
    try:
        check_named(block, table)
    except DataError as error:
        problems[""] = str(error)
    kinds: dict[str, Kind] = {name: "categorical" if found.problem else found.kind for name, found in judged.items()}
    return Survey(
        table.source(judged, kinds, tuple(name for name in table.targets if name in table.names)),
        frozenset(table.stated),
        problems,
        {name: found.odd for name, found in wrong.items()},
        {name: found.kind for name, found in wrong.items()},
    )


def join(block: DataSpec, base: Path | None = None) -> Joined:
    """The files of the source as one table."""
    from pipelines.data.joined import Joined

    if not block.paths:
        return _join_openml(block, base)
    paths = {part: (shown, (base or Path()) / shown) for part, shown in block.paths.items()}
    for shown, path in paths.values():
        check_file(shown, path)
    files: dict[str, File] = {}
    unnamed: set[str] = set()
    for part, (shown, path) in paths.items():
        files[part], more = open_file(block, path, shown)
        unnamed |= more
    return Joined(block, files, {}, sorted(unnamed))


def _join_openml(block: DataSpec, base: Path | None) -> Joined:
    from pipelines.data.delimited import Delimited
    from pipelines.data.joined import Joined
    from pipelines.data.openml import MISSING, open_openml

    found = open_openml(str(block.source), block.sha256, base)
    missing = block.missing.model_copy(update={"markers": (*block.missing.markers, MISSING)})
    block = block.model_copy(update={"missing": missing})
    known = {**found.kinds, **_stated(block, found.text.names)}
    worded = {name for name, kind in known.items() if kind != "numeric"} | {*block.spellings}
    return Joined(block, {"": Delimited(found.text, missing.markers, worded)}, found.kinds)


def _stated(block: DataSpec, names: Sequence[str]) -> dict[str, Kind]:
    from pipelines.data.kinds import stated_kinds

    return stated_kinds(block.columns, names)


def open_file(block: DataSpec, path: Path, shown: str) -> tuple[File, frozenset[str]]:
    """A file of one part, and which of its columns have no name."""
    from pipelines.data.kinds import check_names

    if not shown.lower().endswith(DELIMITED):
        from pipelines.data.parquet import Parquet

        file = Parquet(path, shown)
        check_names(shown, file.names)
        return file, frozenset()
    from pipelines.data.delimited import Delimited
    from pipelines.data.text import open_text

    text = open_text(path, shown, block.format, [*targets_of(block), *block.columns])
    check_names(shown, text.names)
    kinds = _stated(block, text.names)
    worded = {name for name, kind in kinds.items() if kind != "numeric"} | {*block.spellings}
    return Delimited(text, block.missing.markers, worded), text.unnamed


def targets_of(block: DataSpec) -> tuple[str, ...]:
    """The names of data.target."""
    return () if block.target is None else (block.target,) if isinstance(block.target, str) else block.target


def check_file(shown: str, path: Path) -> None:
    """Raises DataError unless `path` is a file."""
    if path.is_dir():
        raise DataError(
            f"data.source must be a file, got the folder {shown!r}; name a file in it that ends in {', '.join(FILES)}"
        )
    if not path.is_file():
        raise DataError(f"data.source must be a file, found none at {shown!r}; a relative path starts at the project's root")


def check_named(block: DataSpec, table: Joined) -> None:
    """Raises DataError unless the columns that the spec names are there."""
    missing = [name for name in table.targets if name not in table.names]
    if missing:
        raise DataError(
            f"{table.shown}: data.target must name columns of the file, got {', '.join(map(repr, missing))}; "
            f"the columns are: {shortened(table.names)}{_guessed(table)}"
        )
    named = {"data.spellings": [*block.spellings], **_named_by_split(block)}
    for key, names in named.items():
        for name in names:
            if name not in table.names:
                raise DataError(
                    f"{table.shown}: {key} must name a column of the file, got {name!r}; {nearest(name, [*table.names])}"
                )


def _named_by_split(block: DataSpec) -> Mapping[str, Sequence[str]]:
    return {f"data.split.{key}": [name] for key in ("group", "time", "part") if (name := getattr(block.split, key))}


def _guessed(table: Joined) -> str:
    text = getattr(table.files[0], "text", None)
    if text is None or not text.guessed:
        return ""
    return (
        " (the first line looks like a row, most of its cells are numbers; if it names the columns set data.format.header: true)"
    )


def shortened(names: Sequence[str], most: int = 50) -> str:
    """Names in a row, the first of very many."""
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
