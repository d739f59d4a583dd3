"""Where a run comes from: who started it, with which command, from which source.

A launch keeps this in its folder before it trains, so that a record that is sent later still says how it was started. Where it
was not kept, it is taken when the run is sent. What differs from the commit is kept as a patch that `git apply` takes: changed
files, and new ones that git does not ignore, binary ones too.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.weights import write_atomically
from pipelines.project import project_of
from pipelines.redact import is_secret_file, redact, redact_command, redact_diff, redacted
from pipelines.tracking.events import Event

KEPT = Path(".deltarule/begun")  # below the folder of a run: tags.json, and uncommitted.diff where files differ from the commit
TAG_CHARACTERS = 5000
DIFF = "source/uncommitted.diff"  # in the run
FILE_BYTES, PATCH_BYTES = 1_000_000, 4_000_000  # a larger file is left out, and what comes once so much is in
SECONDS = 10
FILES_A_CALL = 200  # a command line has a limit
OURS = ("outputs", "runs", "studies", "mlruns", ".mlflow", ".deltarule", ".dvc")  # new files there are no source
WRITTEN = ("dvc.lock", "outputs/record.json")  # the pipeline rewrites them: they make no tree dirty, and no patch
WHOLE, CUT, REDACTED = "whole", "cut", "redacted"


def keep(root: Path, name: str, of: str = "") -> None:
    """Write them down below `root`, once: those of the first time count, unless the folder then held another run (`of`)."""
    folder = root / KEPT
    if (folder / "tags.json").exists() and _read(folder).get("of") == of:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tags.json").unlink(missing_ok=True)  # it says that the rest is there
    (folder / "uncommitted.diff").unlink(missing_ok=True)
    tags, found = take(root, name), uncommitted(root)
    if found.state:
        tags["deltarule.diff"] = found.state
        write_atomically(folder / "uncommitted.diff", found.patch)
    write_atomically(folder / "tags.json", json.dumps({"of": of, "tags": tags}, indent=2).encode())


def kept(root: Path) -> tuple[dict[str, str], Path | None]:
    """Tags, and the file of the diff; empty where none were kept."""
    folder = root / KEPT
    if not (folder / "tags.json").exists():
        return {}, None
    diff = folder / "uncommitted.diff"
    return dict(_read(folder)["tags"]), diff if diff.exists() else None


def _read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "tags.json").read_text(encoding="utf-8"))


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
    """How this process was called, without secrets and without the folder that the program lies in."""
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
    """What differs from the commit. `state` is "" for nothing, WHOLE, CUT where files were left out, or REDACTED.

    A patch that is REDACTED may not apply, or gives another source than the run's; the first lines of each say what is missing.
    """

    patch: bytes = b""
    state: str = ""


@dataclass
class Chosen:
    """Files that differ: those that go into the patch, and the others with the reason."""

    taken: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)  # of those taken, which git does not know
    left: dict[str, str] = field(default_factory=dict)


def commit(root: Path) -> dict[str, str]:
    """Tags: commit, branch and remote, and whether tracked files differ, but for what a pipeline itself rewrites."""
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
    """The patch from the commit to the files as they are, without secrets; nothing where `root` is in no repository of git."""
    top = _text(root, "rev-parse", "--show-toplevel")
    if not top or _text(root, "rev-parse", "--verify", "HEAD") is None:
        return Uncommitted()
    try:
        chosen = _choose(Path(top), project_of(root))
        text, secret = redact_diff(_patch(Path(top), chosen).decode("utf-8", "surrogateescape"))
    except (OSError, subprocess.SubprocessError) as error:
        told = f"git took longer than {SECONDS} s" if isinstance(error, subprocess.TimeoutExpired) else type(error).__name__
        return Uncommitted(f"# what differs from the commit could not be taken: {told}\n".encode(), CUT)
    if not chosen.taken and not chosen.left:
        return Uncommitted()
    lines = [f"# left out: {name} ({reason})" for name, reason in chosen.left.items()]
    lines += [f"# secrets were replaced in: {name}" for name in secret]
    hidden = secret or any(reason == "a file for secrets" for reason in chosen.left.values())
    header = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
    return Uncommitted(header + text.encode("utf-8", "surrogateescape"), REDACTED if hidden else CUT if chosen.left else WHOLE)


def _choose(top: Path, project: Path) -> Chosen:
    changed = _names(top, "diff", "--name-only", "--no-renames", "--ignore-submodules=dirty", "-z", "HEAD")
    others = _names(top, "ls-files", "--others", "--exclude-standard", "-z")
    unknown = {name: None for name in others if _is_source(top / name, project)}
    before = _sizes(top, changed)
    chosen, total = Chosen(), 0
    for name in [*changed, *unknown]:
        if name.endswith(WRITTEN):
            continue
        size = max(before.get(name, 0), _size(top / name))
        reason = _reason(name, size, total)
        if reason:
            chosen.left[name] = reason
        else:
            chosen.taken.append(name)
            chosen.new += [name] if name in unknown else []
            total += size
    return chosen


def _reason(name: str, size: int, total: int) -> str:
    """Why a file is left out; empty if it is not."""
    if is_secret_file(name):
        return "a file for secrets"
    if size > FILE_BYTES:
        return f"{size / 1e6:.1f} MB, more than {FILE_BYTES / 1e6:g} MB"
    return f"the patch had {PATCH_BYTES / 1e6:g} MB" if total + size > PATCH_BYTES else ""


def _is_source(path: Path, project: Path) -> bool:
    return not path.is_relative_to(project) or path.relative_to(project).parts[0] not in OURS


def _size(path: Path) -> int:
    return path.lstat().st_size if path.is_symlink() or path.is_file() else 0


def _sizes(top: Path, names: Sequence[str]) -> dict[str, int]:
    """Bytes of each file in the commit: a large one that was deleted makes a large patch."""
    plain = [name for name in names if "\n" not in name]
    asked = "".join(f"HEAD:{name}\n" for name in plain).encode(errors="surrogateescape")
    told = (
        _git(top, "cat-file", "--batch-check=%(objectsize)", given=asked).decode(errors="replace").splitlines() if plain else []
    )
    return {name: int(line) for name, line in zip(plain, told, strict=False) if line.isdigit()}


def _patch(top: Path, chosen: Chosen) -> bytes:
    """New files are announced in a copy of the index.

    The one object that this makes, the empty file, goes elsewhere too.
    """
    listed = "\0".join(chosen.new).encode(errors="surrogateescape")
    with tempfile.TemporaryDirectory() as scratch:
        index, objects = (top / _git(top, "rev-parse", "--git-path", name).decode().strip() for name in ("index", "objects"))
        if index.exists():
            shutil.copyfile(index, Path(scratch) / "index")
        alone = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": scratch,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects),
        }
        if chosen.new:
            announce = ("add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul")
            _git(top, "--literal-pathspecs", *announce, given=listed, more=alone)
        plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--ignore-submodules=dirty", "--full-index")
        prefixes = ("--src-prefix=a/", "--dst-prefix=b/")
        return b"".join(
            _git(top, "--literal-pathspecs", "diff", "--binary", *plain, *prefixes, "HEAD", "--", *names, more=alone)
            for names in (chosen.taken[start : start + FILES_A_CALL] for start in range(0, len(chosen.taken), FILES_A_CALL))
        )


def _names(top: Path, *arguments: str) -> list[str]:
    return [name for name in _git(top, *arguments).decode("utf-8", "surrogateescape").split("\0") if name]


def _text(root: Path, *arguments: str) -> str | None:
    """What git says, None if it fails or is not there."""
    try:
        return _git(root, *arguments).decode(errors="replace").strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str, given: bytes = b"", more: Mapping[str, str] | None = None) -> bytes:
    # Optional locks: to look must not get into the way of a git command that runs meanwhile.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", **(more or {})}
    command = ["git", "-C", str(root), "-c", "core.quotePath=true", *arguments]
    return subprocess.run(command, input=given, capture_output=True, check=True, timeout=SECONDS, env=environment).stdout
