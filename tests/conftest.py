"""What tests share: a copy of this project to run things in, and the command line as people call it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

# Before any framework is imported, here or in what a test starts: several threads each would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["DVC_NO_ANALYTICS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# What is started in the background of a script ignores Ctrl-C, and hands that on to all it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Where these are set for people's own runs, tests must not write there.
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
    os.environ.pop(name, None)

Command = Callable[..., subprocess.CompletedProcess[str]]


def environment(**more: str) -> dict[str, str]:
    """This process's, with the scripts of this Python on PATH."""
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "COLUMNS": "120", **more}


def call(*command: str | Path, cwd: Path, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command as people do, with the scripts of this Python on PATH; its output as text."""
    env = environment(**more)
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture
def deltarule(tmp_path: Path) -> Command:
    """`deltarule(...)` in an empty folder; `cwd=` for another one."""
    return lambda *arguments, cwd=tmp_path, **more: call("deltarule", *arguments, cwd=cwd, **more)


def copy_of_the_project(folder: Path) -> Path:
    """A git repository that holds what this one would commit, in one commit."""
    listed = call("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT).stdout
    for name in filter(None, listed.split("\0")):
        if ((ROOT / name).is_file() or (ROOT / name).is_symlink()) and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    call("git", "init", "--quiet", "--initial-branch=main", cwd=folder)
    for key, value in (("user.name", "test"), ("user.email", "test@localhost")):
        call("git", "config", key, value, cwd=folder)
    call("git", "add", "--all", cwd=folder)
    call("git", "commit", "--quiet", "--message", "copy", cwd=folder)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A fresh copy of the project."""
    return copy_of_the_project(tmp_path / "project")
