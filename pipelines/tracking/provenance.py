"""Where a run comes from: who started it, with which command, from which source.

A launch keeps this in its folder before it trains, so that a record that is sent later still says how it was started. Where it
was not kept, it is taken when the run is sent.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.weights import write_atomically
from pipelines.redact import redact, redact_command, redacted
from pipelines.tracking import source
from pipelines.tracking.events import Event

KEPT = Path(".deltarule/begun")  # below the folder of a run: tags.json, and uncommitted.diff where files differ from the commit
TAG_CHARACTERS = 5000
DIFF = "source/uncommitted.diff"  # in the run


def keep(root: Path, name: str, of: str = "") -> None:
    """Write them down below `root`, once: those of the first time count, unless the folder then held another run (`of`)."""
    folder = root / KEPT
    if (folder / "tags.json").exists() and _read(folder).get("of") == of:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tags.json").unlink(missing_ok=True)  # it says that the rest is there
    (folder / "uncommitted.diff").unlink(missing_ok=True)
    tags, found = take(root, name), source.uncommitted(root)
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
        **source.commit(root),
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


def dvc_lock(root: Path) -> dict[str, str]:
    """The tag of the pipeline's lock file, where `root` has one: what DVC knew about data and outs."""
    path = root / "dvc.lock"
    return {"deltarule.dvc_lock": hashlib.sha256(path.read_bytes()).hexdigest()} if path.is_file() else {}
