"""The source and the data of a run in a folder of its own: a clone, its commit, what was uncommitted then, and its files.

The user's own tree, branches and worktrees are not touched. Whether a file of the project was changed since is known after the
split, by the hashes of the parts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from backends import children
from pipelines.check.recorded import ReproduceError
from pipelines.spec.blocks import BUNDLED
from pipelines.spec.file import parse

OPENML = Path(".deltarule/openml")  # downloads; data.sha256 holds each to its bytes
UNCOMMITTED = "the run's uncommitted changes (source/uncommitted.diff)"
LINKS = ("120000", "160000")  # modes of symbolic links and submodules
CODE = (".py", ".pyc", ".pyw", ".pyd", ".pth", ".so", ".dll", ".dylib", ".zip", ".egg")
CODE_FOLDERS = ("backends", "pipelines", ".dvc")
OURS = ("_deltarule.py", "backends/__init__.py", "pipelines/__init__.py")  # what a repository holds that is deltarule itself


@dataclass(frozen=True)
class Checkout:
    """`top` of the clone, and in it the folder of the project."""

    top: Path
    project: Path
    code: Path | None = None  # deltarule's own source in the commit; None for a project that uses an installed one

    def environment(self) -> dict[str, str]:
        """Of Python processes in the checkout: nothing that points to the project that it was made from, or to a run.

        A relative entry of PYTHONPATH would name a folder of the checkout.
        """
        inherited = without_pointers(children.environment())
        absolute = [entry for entry in inherited["PYTHONPATH"].split(os.pathsep) if os.path.isabs(entry)]
        return {**inherited, "PYTHONPATH": os.pathsep.join(absolute)}


def without_pointers(environment: dict[str, str]) -> dict[str, str]:
    """Without the variables by which git, DVC and MLflow are told where they are."""
    return {k: v for k, v in environment.items() if not k.startswith(("GIT_", "DVC_", "MLFLOW_"))} | {"DVC_NO_ANALYTICS": "1"}


def check_out(project: Path, commit: str, patch: bytes, folder: Path, *, trust: bool = False) -> Checkout:
    """Clone the repository of `project` into `folder`, which is empty or new, at `commit`, and apply `patch`.

    Commits that no branch holds any more are found too, as long as git keeps them. A patch that touches code is applied only
    with `trust`: it comes from the record, the commit from the user's own repository. Raises ReproduceError.
    """
    top = repository_of(project)
    if _git(top, "cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise ReproduceError(
            f"commit {commit} of the run must be in the repository {top}, which does not have it; fetch it (git fetch --all), "
            "or run this in the clone that the run was made in"
        )
    # Hooks that the user's git is set to run everywhere are for the user's own trees. Not --local: git then insists on links.
    clone = ("clone", "--quiet", "--no-checkout", "--config", "core.hooksPath=/dev/null", str(top), str(folder))
    _checked(_git(top, *clone))
    _checked(_git(folder, "checkout", "--quiet", "--detach", commit))
    folder = folder.resolve()
    inside = folder / project.resolve().relative_to(top)
    # Before the patch: a patch must not decide whose code runs.
    code = next((place for place in (inside, folder) if all((place / name).is_file() for name in OURS)), None)
    if patch.strip() and _apply(folder, patch, commit, "--cached"):
        _check_patch(folder, trust)
        _apply(folder, patch, commit)
    return Checkout(folder, inside, code)


def _apply(folder: Path, patch: bytes, commit: str, *options: str) -> bool:
    """Apply the patch to the files, or with --cached to the index alone; False for one that holds nothing."""
    applied = _git(folder, "apply", "--binary", "--whitespace=nowarn", *options, "-", given=patch)
    if applied.returncode and b"No valid patches" not in applied.stderr:
        missing = f" ({'; '.join(left_out(patch))})" if left_out(patch) else ""
        raise ReproduceError(f"{UNCOMMITTED} do not apply to commit {commit}; git says: {_last(applied)}{missing}")
    return not applied.returncode


def _check_patch(folder: Path, trust: bool) -> None:
    """Look at what the patch, applied to the index, changes. Raises ReproduceError."""
    changed = _git(folder, "diff", "--cached", "--raw", "-z", "--no-renames", "--ignore-submodules=none", "HEAD")
    entries = os.fsdecode(_checked(changed)).split("\0")
    modes = dict(zip(entries[1::2], (entry.split()[1] for entry in entries[0:-1:2]), strict=True))
    links = [name for name, mode in modes.items() if mode in LINKS]
    if links:
        raise ReproduceError(
            f"{UNCOMMITTED} must hold no symbolic link and no submodule, got: {_named(links)}; such a patch is not applied"
        )
    code = [name for name in modes if _is_code(name)]
    if code and not trust:
        raise ReproduceError(
            f"{UNCOMMITTED} touch code, which would be executed: {_named(code)}; read the patch, and add --trust if you trust "
            "who made the run"
        )


def _is_code(name: str) -> bool:
    """Whether Python, or DVC by its settings, may execute it."""
    path = PurePosixPath(name.casefold())
    return (
        path.suffix in CODE
        or ".so." in path.name
        or any(part in CODE_FOLDERS for part in path.parts)
        or any(part.endswith((".egg-info", ".dist-info")) for part in path.parts)
    )


def _named(names: list[str], most: int = 20) -> str:
    """One line, whatever the names hold."""
    shown = ", ".join(name if name.isprintable() else ascii(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def repository_of(project: Path) -> Path:
    """The top of the git repository that a project lies in. Raises ReproduceError."""
    if shutil.which("git") is None:
        raise ReproduceError("git must be installed to check out the commit of a run; found none on PATH")
    done = _git(project, "rev-parse", "--show-toplevel")
    if done.returncode:
        raise ReproduceError(
            f"{project} must lie in a git repository, so that the commit of the run can be checked out: it does not"
        )
    return Path(os.fsdecode(done.stdout.rstrip(b"\n"))).resolve()


def left_out(patch: bytes) -> list[str]:
    """What the first lines of a patch say is not in it as it was."""
    heads = [line[2:] for line in patch.decode(errors="replace").splitlines() if line.startswith("# ")]
    return [line for line in heads if line.startswith(("left out", "secrets were replaced", "what differs"))]


def _git(folder: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {**without_pointers(dict(os.environ)), "LC_ALL": "C"}
    return subprocess.run(["git", "-C", str(folder), *arguments], input=given, capture_output=True, env=environment)


def _checked(done: subprocess.CompletedProcess[bytes]) -> bytes:
    """What git printed. Raises ReproduceError if it failed."""
    if done.returncode:
        raise ReproduceError(f"git {done.args[3]} failed: {_last(done)}")
    return bytes(done.stdout)


def _last(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


# -- data --


@dataclass(frozen=True)
class RestoredFile:
    """One file of the spec: where it came from (git, dvc, project), and the MD5 by which DVC knew it, if it did."""

    name: str
    origin: str
    md5: str | None = None

    def __str__(self) -> str:
        return f"{self.name} (MD5 {self.md5} by DVC)" if self.md5 else self.name


def restore(source: str | Mapping[str, str], project: Path, checkout: Checkout) -> list[RestoredFile]:
    """Put every file of data.source into the checkout; none for bundled sets.

    Raises ReproduceError for one that is not there.
    """
    if isinstance(source, str) and source.startswith("openml:"):
        if (project / OPENML).is_dir():
            shutil.copytree(project / OPENML, checkout.project / OPENML, dirs_exist_ok=True)
        return []
    if isinstance(source, str) and source in BUNDLED:
        return []
    names = [source] if isinstance(source, str) else [name for name in source.values() if name]
    return [_restore(name, project, checkout) for name in names]


def take_from_project(restored: list[RestoredFile], project: Path, checkout: Checkout) -> bool:
    """Replace what DVC had by the project's own files, which the run may have read changed; False where there are none."""
    names = [one.name for one in restored if one.origin == "dvc" and (project / one.name).is_file()]
    for name in names:
        _copy(project / name, checkout.project / name)
    return bool(names)


def _restore(name: str, project: Path, checkout: Checkout) -> RestoredFile:
    target = checkout.project / name
    if Path(name).is_absolute():
        if not target.is_file():
            raise ReproduceError(f"data.source of the run must still be at {name}; found no file there")
        return RestoredFile(name, "project")
    outside = ReproduceError(f"data.source of the run must lie in its git repository, or be an absolute path, got {name}")
    if not Path(os.path.abspath(target)).is_relative_to(checkout.top):
        raise outside
    if target.is_file():
        return RestoredFile(name, "git")
    if not target.parent.resolve().is_relative_to(checkout.top):  # through a symbolic link of the commit
        raise outside
    md5, ours = _md5_by_dvc(name, checkout), project / name
    if _from_cache(name, project, checkout):
        return RestoredFile(name, "dvc", md5)
    if ours.is_file():
        _copy(ours, target)
        return RestoredFile(name, "project", md5)
    wanted = f"the file with MD5 {md5}, which is not in DVC's cache either (perhaps `dvc pull` has it)" if md5 else "it"
    raise ReproduceError(
        f"{name}, which the run read, is gone: it is neither in the run's commit nor in {project}; put {wanted} back there"
    )


def _md5_by_dvc(name: str, checkout: Checkout) -> str | None:
    """By the .dvc file, or else the dvc.lock, of the commit."""
    entries = [*_yaml(checkout.project / f"{name}.dvc").get("outs", ())]
    for stage in _yaml(checkout.project / "dvc.lock").get("stages", {}).values():
        entries += [one for one in (*stage.get("outs", ()), *stage.get("deps", ())) if one.get("path") == name]
    return next((str(one["md5"]) for one in entries if one.get("md5")), None)


def _yaml(path: Path) -> dict[str, Any]:
    """{} where there is no such file."""
    return parse(path.read_text(encoding="utf-8")).value or {} if path.is_file() else {}


def _from_cache(name: str, project: Path, checkout: Checkout) -> bool:
    """Whether DVC can check the file out of the project's cache.

    DVC also knows files in a folder that it keeps as a whole.
    """
    environment = checkout.environment()

    def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = children.command("-m", "dvc", *arguments)
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    cache = dvc(project, "cache", "dir")
    if cache.returncode == 0:
        dvc(checkout.project, "cache", "dir", "--local", cache.stdout.strip())
        dvc(checkout.project, "checkout", name)
    return (checkout.project / name).is_file()


def _copy(source: Path, target: Path) -> None:
    """Not a link: what is kept must stay what it is when the project's file is changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
