"""The source of a run in a folder of its own: a clone, its commit, and what was uncommitted then.

The user's own tree, branches and worktrees are not touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from backends import children
from pipelines.reproduce.errors import ReproduceError

OURS = ("_deltarule.py", "backends/__init__.py", "pipelines/cli.py")  # what a repository holds that is deltarule itself


@dataclass(frozen=True)
class Checkout:
    """`top` of the clone, and in it the folder of the project."""

    top: Path
    project: Path

    @property
    def code(self) -> Path | None:
        """Where deltarule's own source lies in it; None for a project that uses an installed one."""
        return next((place for place in (self.project, self.top) if all((place / name).is_file() for name in OURS)), None)

    def command(self, *arguments: str) -> list[str]:
        """deltarule, of the checkout where it holds one."""
        return [sys.executable, "-P", "-m", "pipelines.cli", *arguments]

    def environment(self) -> dict[str, str]:
        """Of what runs in the checkout: nothing that points to the project that it was made from, or to a run."""
        inherited = without_pointers(children.environment())
        if self.code is not None:
            inherited["PYTHONPATH"] = os.pathsep.join([str(self.code), inherited["PYTHONPATH"]])
        return inherited


def without_pointers(environment: dict[str, str]) -> dict[str, str]:
    """Without the variables by which git, DVC and MLflow are told where they are."""
    return {k: v for k, v in environment.items() if not k.startswith(("GIT_", "DVC_", "MLFLOW_"))} | {"DVC_NO_ANALYTICS": "1"}


def check_out(project: Path, commit: str, patch: bytes, folder: Path) -> Checkout:
    """Clone the repository of `project` into `folder`, which is empty or new, at `commit`, and apply `patch`.

    Commits that no branch holds any more are found too, as long as git keeps them. Raises ReproduceError.
    """
    top = repository_of(project)
    if _git(top, "cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise ReproduceError(
            f"commit {commit} of the run must be in the repository {top}, which does not have it; fetch it (git fetch --all), "
            "or run this in the clone that the run was made in"
        )
    # Hooks that the user's git is set to run everywhere are for the user's own trees. Not --local: git then insists on links.
    clone = ("clone", "--quiet", "--no-checkout", "--config", "core.hooksPath=/dev/null", str(top), str(folder))
    _checked(_git(top, *clone), f"git clone of {top}")
    _checked(_git(folder, "checkout", "--quiet", "--detach", commit), f"git checkout of {commit}")
    if patch.strip():
        applied = _git(folder, "apply", "--binary", "--whitespace=nowarn", "-", given=patch)
        if applied.returncode and b"No valid patches" not in applied.stderr:
            raise ReproduceError(
                f"what was uncommitted at the run (source/uncommitted.diff) must apply to commit {commit}, but git says: "
                f"{_last(applied)}{_why(patch)}"
            )
    return Checkout(folder.resolve(), folder.resolve() / project.resolve().relative_to(top))


def repository_of(project: Path) -> Path:
    """The top of the git repository that a project lies in. Raises ReproduceError."""
    try:
        done = _git(project, "rev-parse", "--show-toplevel")
    except FileNotFoundError:
        raise ReproduceError("git must be installed to check out the commit of a run; found none on PATH") from None
    if done.returncode:
        raise ReproduceError(
            f"{project} must lie in a git repository, so that the commit of the run can be checked out: it does not"
        )
    return Path(os.fsdecode(done.stdout.rstrip(b"\n"))).resolve()


def left_out(patch: bytes) -> list[str]:
    """What the first lines of a patch say is not in it as it was."""
    heads = [line[2:] for line in patch.decode(errors="replace").splitlines() if line.startswith("# ")]
    return [line for line in heads if line.startswith(("left out", "secrets were replaced", "what differs"))]


def _why(patch: bytes) -> str:
    return f" ({'; '.join(left_out(patch))})" if left_out(patch) else ""


def _git(folder: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {**without_pointers(dict(os.environ)), "LC_ALL": "C"}
    return subprocess.run(["git", "-C", str(folder), *arguments], input=given, capture_output=True, env=environment)


def _checked(done: subprocess.CompletedProcess[bytes], what: str) -> None:
    if done.returncode:
        raise ReproduceError(f"{what} must succeed, but git says: {_last(done)}")


def _last(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"
