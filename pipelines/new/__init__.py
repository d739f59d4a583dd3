"""A project of one's own from one file of data: what `deltarule new` writes, all of it or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from pipelines.new.errors import ProjectError
from pipelines.spec.blocks import FILES

if TYPE_CHECKING:
    from pipelines.new.view import View

__all__ = ["Created", "ProjectError", "create"]

SHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")


@dataclass(frozen=True)
class Created:
    """A project that was made: where, from which file in it, what was seen there, and what had to be initialised.

    `added`: file that was there -> lines that were added at its end. `kept`: files that were there and are as they were.
    """

    folder: Path
    source: str
    view: View
    initialised: list[str] = field(default_factory=list)
    added: dict[str, int] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)


def create(
    folder: Path, data: Path, target: Sequence[str], task: str = "auto", changes: Mapping[str, object] | None = None
) -> Created:
    """Make `folder` a project that predicts the column `target` of the file `data`, which is copied into it unless it lies there.

    Nothing that is there is overwritten: .gitignore and .dvcignore get the lines that they lack, and a README.md stays alone.
    `changes`: dotted path below data -> value, what the spec is to say beside that. Raises ProjectError, SpecError for such a
    value, or DataError for data that cannot be used; then nothing was written.
    """
    from pipelines.new.params import TEMPLATE, written
    from pipelines.new.repositories import check_git, init
    from pipelines.new.view import view

    folder = _resolved(folder)
    source = _place_of(data, folder)
    found = view(data, target, task, changes or {})
    kind = "classes" if found.meant != "regression" else "numbers"
    template = {path.name: path.read_text(encoding="utf-8") for path in TEMPLATE.iterdir()}
    readme = Template(template["README.md"]).substitute(name=folder.name, target=", ".join(target), source=source)
    files = {
        "params.yaml": written(found, source, folder.name),
        "dvc.yaml": template["dvc.yaml"] + template[f"plots_of_{kind}.yaml"],
        "studies/dvc.yaml": template["studies.yaml"],
        "README.md": readme,
    }
    kept = [name for name in ("README.md",) if os.path.lexists(folder / name)]
    files = {name: text for name, text in files.items() if name not in kept}
    ignored = {f".{name}": template[name] for name in ("dvcignore", "gitignore")}
    inside = (folder / source).exists() and (folder / source).samefile(data)
    names = [*files, *([] if inside else [source])]
    _check_free(folder, names)
    check_git(folder)
    with _all_or_nothing(folder, names, ignored):
        for name, text in files.items():
            _write(folder / name, text)
        added = {name: _add_lines(folder / name, text) for name, text in ignored.items()}
        if not inside:
            (folder / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data, folder / source)
        initialised = init(folder)
    return Created(folder, source, found, initialised, {name: count for name, count in added.items() if count}, kept)


def _resolved(folder: Path) -> Path:
    folder = Path(os.path.abspath(folder))
    if folder.exists() and not folder.is_dir():
        raise ProjectError(f"{folder} must be a folder or not there yet, found a file")
    return folder


def _place_of(data: Path, folder: Path) -> str:
    """Where the data will lie in the project, as params.yaml names it."""
    if not data.is_file():
        found = "a folder" if data.is_dir() else "nothing"
        raise ProjectError(f"--data must name a file, found {found} at {data}")
    if not data.name.lower().endswith(FILES):
        way_out = "save the sheet as CSV first" if data.suffix.lower() in SHEETS else "write its rows as CSV or Parquet first"
        raise ProjectError(f"--data must name a file that ends in {', '.join(FILES)}, got {data}; {way_out}")
    inside = data.resolve().is_relative_to(folder.resolve())
    return data.resolve().relative_to(folder.resolve()).as_posix() if inside else f"data/{data.name}"


def _check_free(folder: Path, names: list[str]) -> None:
    taken = sorted(name for name in names if os.path.lexists(folder / name))
    if taken:
        raise ProjectError(
            f"{folder} must be free for a new project, but it holds {', '.join(taken)}, and nothing is overwritten; "
            "choose another folder (one inside this is fine), or move them away"
        )


@contextmanager
def _all_or_nothing(folder: Path, names: list[str], changed: Iterable[str]) -> Iterator[None]:
    """If something fails on the way, take away what was made of `names`, and of `changed`, or give back what these held."""
    before = {folder / name: (folder / name).read_bytes() for name in changed if (folder / name).exists()}
    new = [folder / name for name in (*names, *changed, ".git", ".dvc") if not os.path.lexists(folder / name)]
    folders = {above for path in new for above in path.parents if not above.exists()}
    try:
        yield
    except BaseException:
        for path, content in before.items():
            path.write_bytes(content)
        for path in new:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for empty in sorted(folders, reverse=True):  # the innermost first
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()
        raise


def _add_lines(path: Path, text: str) -> int:
    """Write a file, or add the lines that it lacks at its end; how many were added."""
    if not path.exists():
        _write(path, text)
        return 0
    there = path.read_bytes()
    known = {line.strip() for line in there.decode(errors="replace").splitlines()}
    lacking = [line for line in text.splitlines() if line not in known and not line.startswith("#")]
    if lacking:
        gap = b"" if not there or there.endswith(b"\n") else b"\n"
        path.write_bytes(there + gap + "\n".join(["# of deltarule", *lacking, ""]).encode())
    return len(lacking)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
