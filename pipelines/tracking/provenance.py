"""Where a run comes from: who started it, with which command, from which source.

A launch keeps this in its folder before it trains; else it is taken when the run is sent.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from backends.weights import write_atomically
from pipelines.project import project_of
from pipelines.redact import CODE, holds_secret, is_secret_file, redact, redact_command, redacted
from pipelines.tracking.events import TAG_CHARACTERS, Event

KEPT = Path(".deltarule/begun")  # below the folder of a run
DIFF = "source/uncommitted.diff"  # in the run
FILE_BYTES, PATCH_CHARACTERS = 500_000, 1_000_000  # what is larger is left out
SECONDS = 10
FILES_A_CALL = 200  # a command line has a limit
# New files there are no source.
OURS = ("outputs", "runs", "studies", "mlruns", ".mlflow", "mlflow.db", "mlartifacts", ".deltarule", ".dvc")
WRITTEN = ("dvc.lock", "outputs/record.json")  # the pipeline rewrites them
WHOLE, CUT = "whole", "cut"
# A diff whose form does not depend on the user's settings.
PLAIN = (
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--no-renames",
    "--ignore-submodules=dirty",
    "--full-index",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)


def keep(root: Path, name: str, of: str = "", launch: Mapping[str, Any] = {}) -> None:
    """Write them down below `root`, once, unless the folder then held another run (`of`)."""
    folder = root / KEPT
    if _read(folder).get("of") == of:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tags.json").unlink(missing_ok=True)  # it says that the rest is there
    (folder / "uncommitted.diff").unlink(missing_ok=True)
    tags, found = take(root, name), uncommitted(root)
    if found.state:
        tags["deltarule.diff"] = found.state
        write_atomically(folder / "uncommitted.diff", found.patch)
    told = {"of": of, "tags": tags, "launch": redacted(dict(launch))}
    write_atomically(folder / "tags.json", json.dumps(told, indent=2).encode())


def kept(root: Path) -> tuple[dict[str, str], Path | None]:
    """Tags, and the file of the diff; empty where none were kept."""
    folder = root / KEPT
    tags, diff = _read(folder).get("tags", {}), folder / "uncommitted.diff"
    return tags, diff if tags and diff.exists() else None


def _read(folder: Path) -> dict[str, Any]:
    """What stands there; {} where that is nothing, or damaged."""
    try:
        told = dict(json.loads((folder / "tags.json").read_text(encoding="utf-8")))
        return {**told, "tags": {key: str(value) for key, value in dict(told["tags"]).items()}}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def take(root: Path, name: str) -> dict[str, str]:
    """Tags of this moment, without secrets; `name` is what MLflow shows as the source."""
    tags = {
        "mlflow.source.name": name,
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user(),
        "deltarule.command": command_line(sys.argv),
        **commit(root),
    }
    tags.update({f"deltarule.{v.lower()}": os.environ[v] for v in ("DVC_EXP_NAME", "DVC_STAGE") if os.environ.get(v)})
    return {key: text[:TAG_CHARACTERS] for key, text in redacted(tags).items()}


def begin() -> Event:
    """This process begins a run, or goes on with it."""
    return Event("begin", "create", {"host": platform.node(), "command": command_line(sys.argv)})


def command_line(arguments: Sequence[str]) -> str:
    """How this process was called, without secrets and without the program's folder."""
    program = Path(arguments[0]).name if arguments else ""
    original = sys.orig_argv
    if program.removesuffix(".exe") == "deltarule":
        return redact_command(["deltarule", *arguments[1:]])
    # An absolute path says where this machine keeps things; its last part says what was called.
    plain = [Path(argument).name if Path(argument).is_absolute() else argument for argument in original[1:]]
    return redact_command(["python", *plain] if original else arguments)


def user() -> str:
    """Who is logged in here."""
    try:
        return redact(getpass.getuser())
    except (KeyError, OSError):  # a container's user often has no name
        return "unknown"


# -- the source --


@dataclass(frozen=True)
class Uncommitted:
    """What differs from the commit; `state` is "" for nothing, WHOLE, or CUT."""

    patch: bytes = b""
    state: str = ""


def commit(root: Path) -> dict[str, str]:
    """Tags: commit, branch and remote, and whether tracked files differ."""
    head = _text(root, "rev-parse", "HEAD")
    if head is None:
        return {}
    found = {
        "commit": head,
        "branch": _text(root, "symbolic-ref", "--quiet", "--short", "HEAD"),
        "repoURL": _text(root, "config", "--get", "remote.origin.url"),
    }
    written = [f":(exclude,top)*{name}" for name in WRITTEN]
    changed = _text(root, "status", "--porcelain", "--untracked-files=no", "--", ":/", *written)
    found["dirty"] = None if changed is None else str(bool(changed)).lower()
    return {f"mlflow.source.git.{name}": value for name, value in found.items() if value}


def uncommitted(root: Path) -> Uncommitted:
    """The patch from the commit to the files as they are; nothing outside of git.

    Left out, and named: files that hold secrets, binary and large ones, and what is new and no code.
    """
    top = _text(root, "rev-parse", "--show-toplevel")
    if not top or _text(root, "rev-parse", "--verify", "HEAD") is None:
        return Uncommitted()
    try:
        patch, left = _take(Path(top), project_of(root))
    except (OSError, subprocess.SubprocessError) as error:
        why = f"git took longer than {SECONDS} s" if isinstance(error, subprocess.TimeoutExpired) else type(error).__name__
        return Uncommitted(f"# what differs from the commit could not be taken: {why}\n".encode(), CUT)
    names = {name: name if name.isprintable() else ascii(name) for name in left}
    header = "".join(f"# left out: {names[name]} ({why})\n" for name, why in left.items())
    state = CUT if left else WHOLE if patch else ""
    return Uncommitted((header + patch).encode("utf-8", "surrogateescape"), state)


def _take(top: Path, project: Path) -> tuple[str, dict[str, str]]:
    """The patch, and file -> why it is not in it."""
    changed = {}
    for line in _names(top, "diff", *PLAIN, "--numstat", "-z", "HEAD"):
        added, _, name = line.split("\t", 2)
        changed[name] = "a binary file" if added == "-" else ""
    others = _names(top, "ls-files", "--others", "--exclude-standard", "-z")
    ours = {project / folder for folder in OURS}
    new = {name: _why_not_new(top / name) for name in others if ours.isdisjoint([top / name, *(top / name).parents])}
    source = {name: why for name, why in {**changed, **new}.items() if not name.endswith(WRITTEN)}
    found = {name: _why_not(top, name) or why for name, why in source.items()}
    taken = [name for name, reason in found.items() if not reason]
    known = [name for name in taken if name in changed]
    patch = ""
    for name, part in zip(taken, _diffs(top, known, taken[len(known) :]), strict=True):
        if holds_secret("\n".join(line[1:] for line in part.split("\n")), name):
            found[name] = "it holds what looks like a secret"
        elif len(patch) + len(part) > PATCH_CHARACTERS:
            found[name] = f"the patch had {PATCH_CHARACTERS / 1e6:g} MB"
        else:
            patch += part
    return patch, {name: reason for name, reason in found.items() if reason}


def _why_not(top: Path, name: str) -> str:
    """Why a file is left out, by its name and size; empty if it is not."""
    if is_secret_file(name):
        return "a file for secrets"
    size = (top / name).lstat().st_size if os.path.lexists(top / name) else 0
    return f"{size / 1e6:.1f} MB, more than {FILE_BYTES / 1e6:g} MB" if size > FILE_BYTES else ""


def _why_not_new(path: Path) -> str:
    if path.is_symlink():
        return "a new symbolic link"
    if path.suffix in CODE:
        return ""
    with path.open("rb") as stream:
        return f"new and no code, SHA-256 {hashlib.file_digest(stream, 'sha256').hexdigest()}"


def _diffs(top: Path, changed: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """The part of the patch of each file, in this order; `changed` in git's own."""
    for start in range(0, len(changed), FILES_A_CALL):
        names = changed[start : start + FILES_A_CALL]
        text = _git(top, "--literal-pathspecs", "diff", *PLAIN, "HEAD", "--", *names)
        parts = re.split(r"^(?=diff --git )", text, flags=re.MULTILINE)[1:]
        # A file that became a link has two.
        yield from map("".join, (same for _, same in groupby(parts, lambda part: part.partition("\n")[0])))
    for name in new:
        yield _git(top, "diff", *PLAIN, "--no-index", "--", os.devnull, name, ends=(0, 1))


def _names(top: Path, *arguments: str) -> list[str]:
    return [name for name in _git(top, *arguments).split("\0") if name]


def is_in_git(path: Path) -> bool:
    """Whether git tracks a file: it may then have come with a clone."""
    return bool(_text(path.parent, "ls-files", path.name))


def _text(root: Path, *arguments: str) -> str | None:
    """What git says, None if it fails or is not there."""
    try:
        return _git(root, *arguments, errors="replace").strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str, ends: Sequence[int] = (0,), errors: str = "surrogateescape") -> str:
    # Looking must not hinder another git command.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    command = ["git", "-C", str(root), "-c", "core.quotePath=true", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=SECONDS, env=environment)
    if done.returncode not in ends:
        done.check_returncode()
    return done.stdout.decode("utf-8", errors)
