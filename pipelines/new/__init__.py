"""A project of one's own from one file of data: what `deltarule new` writes, all of it or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.new.errors import ProjectError

if TYPE_CHECKING:
    from pipelines.new.view import View

__all__ = ["Created", "ProjectError", "create"]


@dataclass(frozen=True)
class Created:
    """A project that was made: where, from which file in it, what was seen there, and what had to be initialised."""

    folder: Path
    source: str
    view: View
    initialised: list[str] = field(default_factory=list)


def create(
    folder: Path, data: Path, target: Sequence[str], task: str = "auto", changes: Mapping[str, object] | None = None
) -> Created:
    """Make `folder` a project that predicts the column `target` of the file `data`, which is copied into it unless it lies there.

    `changes`: dotted path below data -> value, what the spec is to say beside that. Raises ProjectError, SpecError for such a
    value, or DataError for data that cannot be used; then nothing was written.
    """
    from pipelines.new import params, texts
    from pipelines.new.repositories import check_git, init
    from pipelines.new.view import view

    folder = _resolved(folder)
    source = _place_of(data, folder)
    found = view(data, target, task, changes or {})
    spec = params.written(found, source, folder.name)
    plots = texts.PLOTS_OF_CLASSES if found.meant != "regression" else texts.PLOTS_OF_NUMBERS
    files = {
        "params.yaml": spec,
        "dvc.yaml": texts.DVC_YAML + plots,
        "studies/dvc.yaml": texts.SEARCH_YAML,
        ".dvcignore": texts.DVC_IGNORE,
        ".gitignore": texts.GIT_IGNORE,
        "README.md": texts.README.format(name=folder.name, target=", ".join(target), source=source),
    }
    inside = (folder / source).exists() and (folder / source).samefile(data)
    names = [*files, *([] if inside else [source])]
    _check_free(folder, names)
    check_git(folder)
    with _all_or_nothing(folder, names):
        for name, text in files.items():
            _write(folder / name, text)
        if not inside:
            (folder / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data, folder / source)
        initialised = init(folder)
    return Created(folder, source, found, initialised)


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
def _all_or_nothing(folder: Path, names: list[str]) -> Iterator[None]:
    """Take away what was made of `names` if something fails on the way."""
    new = [folder / name for name in (*names, ".git", ".dvc") if not os.path.lexists(folder / name)]
    folders = {above for path in new for above in path.parents if not above.exists()}
    try:
        yield
    except BaseException:
        for path in new:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for empty in sorted(folders, reverse=True):  # the innermost first
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()
        raise


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
