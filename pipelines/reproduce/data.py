"""The files of data that a run read, put where the checkout's spec looks for them: from git, DVC's cache, or the project.

git and DVC say by hash that a file is the commit's. What lies in the project may have been changed since: that the rows are
the run's is judged after the split, by the hashes of its parts.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends import children
from pipelines.reproduce.checkout import Checkout, environment_of_children
from pipelines.reproduce.errors import ReproduceError
from pipelines.spec.blocks import BUNDLED

LOCK = "dvc.lock"


@dataclass(frozen=True)
class Placed:
    """One file of the spec: where it came from (git, dvc, project), and the MD5 by which DVC knew it, if it did."""

    name: str
    origin: str
    md5: str | None = None


def place(source: str | Mapping[str, str], project: Path, checkout: Checkout) -> list[Placed]:
    """Put every file of data.source into the checkout; none for bundled sets. Raises ReproduceError for one that is not there."""
    if isinstance(source, str) and source.startswith("openml:"):
        _take_openml(source, project, checkout)
        return []
    if isinstance(source, str) and source in BUNDLED:
        return []
    names = [source] if isinstance(source, str) else [name for name in source.values() if name]
    return [_place(name, project, checkout) for name in names]


def place_as_they_lie(placed: list[Placed], project: Path, checkout: Checkout) -> list[Placed] | None:
    """The project's own files in place of what DVC had, to try those; None where that would change nothing."""
    others = [one for one in placed if one.origin == "dvc" and (project / one.name).is_file()]
    others = [one for one in others if _md5(project / one.name) != _md5(checkout.project / one.name)]
    for one in others:
        _copy(project / one.name, checkout.project / one.name)
    return [Placed(one.name, "project", one.md5) if one in others else one for one in placed] if others else None


def _take_openml(source: str, project: Path, checkout: Checkout) -> None:
    """data.sha256 holds it to its bytes."""
    kept = Path(".deltarule/openml") / f"{source.partition(':')[2]}.arff"
    if (project / kept).is_file():
        _copy(project / kept, checkout.project / kept)


def _place(name: str, project: Path, checkout: Checkout) -> Placed:
    target = checkout.project / name
    if Path(name).is_absolute():
        if not target.is_file():
            raise ReproduceError(f"data.source of the run must still be at {name}; found no file there")
        return Placed(name, "project")
    if not Path(os.path.abspath(target)).is_relative_to(checkout.top):
        raise ReproduceError(f"data.source of the run must lie in its git repository, or be an absolute path, got {name}")
    if target.is_file():
        return Placed(name, "git")
    known = _known(name, checkout)
    if known is not None and _from_dvc(name, known, project, checkout):
        return Placed(name, "dvc", known)
    if (project / name).is_file():
        _copy(project / name, target)
        return Placed(name, "project", known)
    wanted = f"the file with MD5 {known}, which is not in DVC's cache either (perhaps `dvc pull` has it)" if known else "it"
    raise ReproduceError(
        f"{name}, which the run read, is gone: it is neither in the run's commit nor in {project}; put {wanted} back there"
    )


def _known(name: str, checkout: Checkout) -> str | None:
    """The MD5 of a file by its .dvc file, or else the dvc.lock, of the commit. "" for a file in a folder that DVC keeps."""
    documents = [(checkout.project / f"{name}.dvc", "outs"), (checkout.project / LOCK, "stages")]
    for path, key in documents:
        if path.is_file():
            held = _yaml(path).get(key) or {}
            entries = held if key == "outs" else [e for s in held.values() for e in (*s.get("outs", ()), *s.get("deps", ()))]
            for entry in entries:
                if entry.get("md5") and (key == "outs" or entry.get("path") == name):
                    return str(entry["md5"])
    above = [checkout.project / folder for folder in Path(name).parents if folder != Path()]
    return "" if any(folder.with_name(f"{folder.name}.dvc").is_file() for folder in above) else None


def _from_dvc(name: str, md5: str, project: Path, checkout: Checkout) -> bool:
    """Take the file from the project if it is still the one, else from DVC's cache; whether it was there."""
    target = checkout.project / name
    if md5 and (project / name).is_file() and _md5(project / name) == md5:
        _copy(project / name, target)
        return True
    cache = _cache_of(project)
    kept = cache / "files/md5" / md5[:2] / md5[2:] if cache and md5 else None
    if kept is not None and kept.is_file():
        _copy(kept, target)
    elif cache and not md5:
        _dvc_checkout(name, cache, checkout)
    return target.is_file()


def _dvc_checkout(name: str, cache: Path, checkout: Checkout) -> None:
    """A file in a folder that DVC keeps as a whole. Where that fails, the file is not there."""
    root = next((above for above in (checkout.project, *checkout.project.parents) if (above / ".dvc").is_dir()), None)
    if root is not None:
        with (root / ".dvc/config.local").open("a", encoding="utf-8") as config:
            config.write(f"\n[cache]\n    dir = {cache}\n")
        _dvc(checkout.project, "checkout", name)


def _cache_of(project: Path) -> Path | None:
    done = _dvc(project, "cache", "dir")
    return Path(done.stdout.strip()) if done.returncode == 0 and done.stdout.strip() else None


def _dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = children.command("-m", "dvc", *arguments)
    return subprocess.run(command, cwd=folder, env=environment_of_children(), capture_output=True, text=True)


def _copy(source: Path, target: Path) -> None:
    """Not a link: what is kept must stay what it is when the project's file is changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _yaml(path: Path) -> dict[str, Any]:
    from pipelines.spec.yaml_file import YamlError, parse

    try:
        value = parse(path.read_text(encoding="utf-8")).value
    except (YamlError, UnicodeDecodeError):  # a file of DVC that is no YAML says nothing
        return {}
    return value if isinstance(value, dict) else {}
