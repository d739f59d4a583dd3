"""git and DVC where a new project has neither: those that are there already, in the folder or above it, are used."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends import children
from pipelines.new.errors import ProjectError

DVC_CONFIG = "[core]\n    analytics = false\n"


def git_root(folder: Path) -> Path | None:
    """The git repository that a folder lies in, which need not exist yet."""
    return next((above for above in (folder, *folder.parents) if (above / ".git").exists()), None)


def dvc_root(folder: Path, git: Path | None) -> Path | None:
    """The DVC repository that a folder lies in, within its git repository."""
    inside = [above for above in (folder, *folder.parents) if git is None or above.is_relative_to(git)]
    return next((above for above in inside if (above / ".dvc").is_dir()), None)


def check_git(folder: Path) -> None:
    """Raises ProjectError unless there is a git that can be used in the folder."""
    if shutil.which("git") is None:
        raise ProjectError("git must be installed, for DVC keeps what belongs together by it; found none on PATH")
    root = git_root(folder)
    if root and _git(root, "check-ignore", "--quiet", str(folder / "dvc.yaml")).returncode == 0:
        raise ProjectError(f"{folder} must be a folder that git sees, but {root}/.gitignore leaves it out; choose another")


def init(folder: Path) -> list[str]:
    """Make what is missing; says what was made. Raises ProjectError."""
    made = []
    root = git_root(folder)
    if root is None:
        _checked(_git(folder, "init", "--quiet"), "git init")
        root = folder
        made.append("git")
    if dvc_root(folder, root) is None:
        with _nothing_staged(folder):
            _checked(_dvc(folder, "init", "--quiet", *(["--subdir"] if root != folder else [])), "dvc init")
        (folder / ".dvc/config").write_text(DVC_CONFIG, encoding="utf-8")
        made.append("DVC")
    return made


@contextmanager
def _nothing_staged(folder: Path) -> Iterator[None]:
    """`dvc init` stages its files; what a person's next commit holds is for them to say."""
    index = folder / _git(folder, "rev-parse", "--git-path", "index").stdout.strip()
    before = index.read_bytes() if index.is_file() else None
    try:
        yield
    finally:
        if before is None:
            index.unlink(missing_ok=True)
        else:
            index.write_bytes(before)


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)


def _dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """DVC of the environment that deltarule is in, which need not be on PATH."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")} | {"DVC_NO_ANALYTICS": "1"}
    command = children.command("-m", "dvc", *arguments)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def _checked(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise ProjectError(f"{what} failed with exit code {done.returncode}: {said[-1]}")
