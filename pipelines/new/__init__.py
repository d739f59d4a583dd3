"""A project of one's own from one file of data: what `deltarule new` writes, all of it or nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import platformdirs

from backends import children
from backends.weights import write_atomically
from pipelines.data.look import Look
from pipelines.new.params import TEMPLATE, ProjectError, view, written
from pipelines.spec.blocks import FILES

__all__ = ["Created", "ProjectError", "create"]

DVC_CONFIG = "[core]\n    analytics = false\n"
SHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")


@dataclass(frozen=True)
class Created:
    """A project that was made: where, from which file in it, what was seen there, and what had to be initialised.

    `added`: file that was there -> lines that were added at its end. `kept`: files that were there and are as they were.
    """

    folder: Path
    source: str
    found: Look
    initialised: list[str] = field(default_factory=list)
    added: dict[str, int] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)


def create(
    folder: Path,
    data: Path,
    target: Sequence[str],
    task: str = "auto",
    changes: Mapping[str, object] | None = None,
    test: Path | None = None,
) -> Created:
    """Make `folder` a project that predicts the column `target` of the file `data`, which is copied into it unless it lies there.

    Nothing that is there is overwritten: .gitignore and .dvcignore get the lines that they lack, and a README.md stays alone.
    `changes`: dotted path below data -> value, what the spec is to say beside that. `test`: the test rows, if in a file of
    their own. Raises ProjectError, SpecError or DataError; then nothing was written.
    """
    folder = Path(os.path.abspath(folder))
    if folder.exists() and not folder.is_dir():
        raise ProjectError(f"{folder} must be a folder or not there yet, found a file")
    given = {"train": data} if test is None else {"train": data, "test": test}
    places = {part: _place_of(file, folder, part) for part, file in given.items()}
    if len({*places.values()}) < len(places):
        raise ProjectError(f"--test must be a file of another name than --data's, got {test} and {data}")
    seen = view(given, target, task, changes or {})
    kind = "classes" if seen.found.classes else "numbers"
    template = {path.name: path.read_text(encoding="utf-8") for path in TEMPLATE.iterdir()}
    source = " and ".join(places.values())
    readme = Template(template["README.md"]).substitute(name=folder.name, target=", ".join(target), source=source)
    stages = {"dvc.yaml": template["dvc.yaml"] + template[f"plots_of_{kind}.yaml"], "studies/dvc.yaml": template["studies.yaml"]}
    if test is not None:
        each = "${data.source.train}\n      - ${data.source.test}"
        stages = {name: text.replace("${data.source}", each) for name, text in stages.items()}
    files = {
        "params.yaml": written(seen, places, folder.name),
        **stages,
        "README.md": readme,
    }
    kept = [name for name in ("README.md",) if os.path.lexists(folder / name)]
    files = {name: text for name, text in files.items() if name not in kept}
    ignored = {f".{name}": template[name] for name in ("dvcignore", "gitignore")}
    outside = {place: given[part] for part, place in places.items() if given[part].resolve() != (folder / place).resolve()}
    names = [*files, *outside]
    taken = sorted(name for name in names if os.path.lexists(folder / name))
    if taken:
        raise ProjectError(
            f"{folder} must be free for a new project, but it holds {', '.join(taken)}, and nothing is overwritten; "
            "choose another folder (one inside this is fine), or move them away"
        )
    check_git(folder)
    with _all_or_nothing(folder, names, ignored):
        for name, text in files.items():
            write_atomically(folder / name, text.encode())
        added = {name: _add_lines(folder / name, text) for name, text in ignored.items()}
        for place, file in outside.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / place)
        initialised = init(folder)
    return Created(folder, source, seen.found, initialised, {name: count for name, count in added.items() if count}, kept)


def _place_of(data: Path, folder: Path, part: str) -> str:
    """Where the data will lie in the project, as params.yaml names it."""
    option = "--data" if part == "train" else "--test"
    if not data.is_file():
        found = "a folder" if data.is_dir() else "nothing"
        raise ProjectError(f"{option} must name a file, found {found} at {data}")
    if not data.name.lower().endswith(FILES):
        way_out = "save the sheet as CSV first" if data.suffix.lower() in SHEETS else "write its rows as CSV or Parquet first"
        raise ProjectError(f"{option} must name a file that ends in {', '.join(FILES)}, got {data}; {way_out}")
    inside = data.resolve().is_relative_to(folder.resolve())
    return data.resolve().relative_to(folder.resolve()).as_posix() if inside else f"data/{data.name}"


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
        write_atomically(path, text.encode())
        return 0
    there = path.read_bytes()
    known = {line.strip() for line in there.decode(errors="replace").splitlines()}
    lacking = [line for line in text.splitlines() if line not in known and not line.startswith("#")]
    if lacking:
        gap = b"" if not there or there.endswith(b"\n") else b"\n"
        write_atomically(path, there + gap + "\n".join(["# of deltarule", *lacking, ""]).encode())
    return len(lacking)


# -- git and DVC --


def git_root(folder: Path) -> Path | None:
    """The git repository that a folder lies in, which need not exist yet."""
    return next((above for above in (folder, *folder.parents) if (above / ".git").exists()), None)


def check_git(folder: Path) -> None:
    """Raises ProjectError unless there is a git that can be used in the folder."""
    if shutil.which("git") is None:
        raise ProjectError("git must be installed, for DVC keeps what belongs together by it; found none on PATH")
    root = git_root(folder)
    if root and _run(root, "git", "check-ignore", "--quiet", str(folder / "dvc.yaml")).returncode == 0:
        raise ProjectError(f"{folder} must be a folder that git sees, but {root}/.gitignore leaves it out; choose another")


def init(folder: Path) -> list[str]:
    """Make what is missing; says what was made. Raises ProjectError."""
    made = []
    root = git_root(folder)
    if root is None:
        _checked(_run(folder, "git", "init", "--quiet"), "git init")
        root = folder
        made.append("git")
    inside = [above for above in (folder, *folder.parents) if above.is_relative_to(root)]
    if not any((above / ".dvc").is_dir() for above in inside):
        # `dvc init` stages its files; a person's next commit is theirs.
        index = folder / _run(folder, "git", "rev-parse", "--git-path", "index").stdout.strip()
        staged = index.read_bytes() if index.is_file() else None
        command = children.command("-m", "dvc", "init", "--quiet", *(["--subdir"] if root != folder else []))
        try:
            _checked(_run(folder, *command), "dvc init")
        finally:
            index.unlink(missing_ok=True)
            if staged is not None:
                index.write_bytes(staged)
        (folder / ".dvc/config").write_text(DVC_CONFIG, encoding="utf-8")
        cache = f"[core]\n    site_cache_dir = {private_cache().as_posix()}\n"
        (folder / ".dvc/config.local").write_text(cache, encoding="utf-8")
        made.append("DVC")
    return made


def private_cache() -> Path:
    """A folder for DVC's site cache, its owner's alone: what lies there is unpickled."""
    folder = platformdirs.user_cache_path("deltarule") / "dvc"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")} | {"DVC_NO_ANALYTICS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def _checked(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise ProjectError(f"{what} failed with exit code {done.returncode}: {said[-1]}")
