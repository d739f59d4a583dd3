"""The files of data that a run read, put where the checkout's spec looks for them: from git, DVC's cache, or the project.

git and DVC know by hash that a file is the commit's. A file of the project may have been changed since: whether its rows are
those of the run is decided after the split, by the hashes of the parts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends import children
from pipelines.check.checkout import Checkout, environment_of_children
from pipelines.check.recorded import ReproduceError
from pipelines.spec.blocks import BUNDLED
from pipelines.spec.yaml_file import parse

OPENML = Path(".deltarule/openml")  # downloads; data.sha256 holds each to its bytes


@dataclass(frozen=True)
class RestoredFile:
    """One file of the spec: where it came from (git, dvc, project), and the MD5 by which DVC knew it, if it did."""

    name: str
    origin: str
    md5: str | None = None

    def __str__(self) -> str:
        return f"{self.name} (MD5 {self.md5} by DVC)" if self.md5 else self.name


def restore(source: str | Mapping[str, str], project: Path, checkout: Checkout) -> list[RestoredFile]:
    """Put every file of data.source into the checkout; none for bundled sets. Raises ReproduceError for one that is not there."""
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
    """Whether DVC can check the file out of the project's cache. DVC also knows files in a folder that it keeps as a whole."""
    cache = _dvc(project, "cache", "dir")
    if cache.returncode == 0:
        _dvc(checkout.project, "cache", "dir", "--local", cache.stdout.strip())
        _dvc(checkout.project, "checkout", name)
    return (checkout.project / name).is_file()


def _dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = children.command("-m", "dvc", *arguments)
    return subprocess.run(command, cwd=folder, env=environment_of_children(), capture_output=True, text=True)


def _copy(source: Path, target: Path) -> None:
    """Not a link: what is kept must stay what it is when the project's file is changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
