"""What tests share: a copy of this project to run things in, the command line as people call it, and who runs what."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm

from backends import children
from backends.conformance import compare
from backends.weights import write_atomically

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

# Before any framework is imported, here or in what a test starts: several threads each would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# What is started in the background of a script ignores Ctrl-C, and hands that on to all it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Where these are set for people's own runs, tests must not write there.
for name in [name for name in os.environ if name.startswith(("MLFLOW_", "DVC_"))]:
    del os.environ[name]
os.environ |= {"DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
# Else each command that a test starts would compile our modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if not os.environ.get("DELTARULE_COLD") and sys.platform == "linux":
    os.environ["DELTARULE_UNDRAWN"] = "1"
    os.environ["DELTARULE_WARM"] = os.environ.get("DELTARULE_WARM") or warm.start()  # one for all processes of xdist
STARTED = dict(os.environ)
PYTHON = sys.executable
if WARM := os.environ.get("DELTARULE_WARM", ""):
    PYTHON = f"{WARM}/python"
    children.command = lambda *arguments: [PYTHON, "-P", *arguments]

COURSES, WORK_OUT = ROOT / ".pytest_cache/courses", compare.follow_reference
SOURCES = [file for place in ("", "reference", "conformance") for file in sorted((ROOT / "backends" / place).glob("*.py"))]
HASH = hashlib.sha256(b"".join(file.read_bytes() for file in SOURCES) + (sys.version + np.__version__).encode()).hexdigest()


def kept_course(structure: int, precision: str, steps: int) -> compare.Course:
    """What the reference did, worked out once for all processes as long as nothing that it comes from changes."""
    file = COURSES / f"{HASH}-{structure}-{precision}-{steps}"
    if not file.is_file():
        write_atomically(file, pickle.dumps(WORK_OUT(structure, precision, steps)))
        for old in {*COURSES.iterdir()} - {*COURSES.glob(f"*{HASH}*")}:
            old.unlink(missing_ok=True)
    course: compare.Course = pickle.loads(file.read_bytes())
    return course


compare.follow_reference = kept_course

# Each line is run by one process from end to end: what its files share is made once, and no two of them compete. The longest
# stand first, or one process would begin one when the other has nothing left to do. Other files are a line of their own.
TOGETHER = (
    ("test_pipeline.py", "test_readme.py"),  # which train, with all that a core can give
    ("test_kept.py",),
    ("test_keras_jax.py",),
    # What the reference did on the covering list of the contract is worked out once a process, and TensorFlow imported once.
    ("test_conformance_cases.py", "test_conformance_teeth.py", "test_reference.py", "test_lightning.py", "test_keras.py",
     "test_keras_plain.py", "test_search_keras.py", "test_stages.py"),
    ("test_new.py",),
    ("test_carry.py",),
    ("test_event_log.py",),
    ("test_cli.py",),
    ("test_ddp.py",),
    ("test_plugin.py",),
    ("test_search_storage.py", "test_search_engines.py"),  # one database server
    ("test_executors_ray.py", "test_search_ray.py"),  # one cluster at a time
    ("test_ui.py",),
    ("test_reproduce.py",),
)  # fmt: skip
LINES = {name: number for number, line in enumerate(TOGETHER) for name in line}

Command = Callable[..., subprocess.CompletedProcess[str]]
DRAWN = ("test_report.py", "test_study_figures.py", "test_ui.py")  # look at figures; all others do without, see warm.py


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Line by line; within one, and for the files of no line, as they were."""
    items.sort(key=lambda item: LINES.get(item.path.name, len(TOGETHER)))
    take_back_variables()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the last test of a file."""
    if nextitem is None or nextitem.path != item.path:
        take_back_variables()


def take_back_variables() -> None:
    """What libraries have set for themselves, when they were imported or later (Ray): no command would be warm."""
    for name in os.environ.keys() - STARTED.keys():
        if warm.AT_IMPORT.match(name):
            del os.environ[name]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deals lines and files out to processes. (pytest-xdist 3.8 does not see its own groups with pytest 9.2: its issue 1386.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByLine(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return str(LINES.get(Path(file).name, file))

    config.option.loadscopereorder = False  # else what has most tests would come first
    return ByLine(config, log)


def environment(**more: str) -> dict[str, str]:
    """This process's, with the scripts of this Python on PATH, warm ones first (warm.py)."""
    path = os.pathsep.join(filter(None, [WARM, str(BIN), os.environ.get("PATH", "")]))
    return {**os.environ, "PATH": path, "COLUMNS": "120", **more}


def call(*command: str | Path, cwd: Path, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command as people do, with the scripts of this Python on PATH; its output as text."""
    env = environment(**more)
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test's own process draws is not rendered."""
    if request.path.name not in DRAWN:
        for name, stand_in in warm.UNDRAWN.items():
            monkeypatch.setattr(f"matplotlib.figure.Figure.{name}", stand_in)


@pytest.fixture
def deltarule(tmp_path: Path) -> Command:
    """`deltarule(...)` in an empty folder; `cwd=` for another one."""
    return lambda *arguments, cwd=tmp_path, **more: call("deltarule", *arguments, cwd=cwd, **more)


class SmallDisk(type(Path())):  # type: ignore[misc]
    """A folder on a file system of its own, of 4 MiB."""

    def fill(self, left: int = 0) -> Path:
        """A file that leaves so many bytes; its name."""
        filler = Path(self) / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        os.truncate(filler, filler.stat().st_size - left)
        return filler


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that can be full for real."""
    folder = SmallDisk(tmp_path / "disk")
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def empty_store(root: Path) -> None:
    """Give a project MLflow's database without experiments. To make one takes seconds; to copy it does not."""
    kept = ROOT / f".pytest_cache/mlflow-{version('mlflow')}.db"
    if not kept.is_file():
        from mlflow import MlflowClient

        kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").search_experiments(max_results=1)
            Path(folder, "mlflow.db").replace(kept)
    (root / ".mlflow").mkdir(parents=True)
    shutil.copy(kept, root / ".mlflow/mlflow.db")


@pytest.fixture
def stored_project(tmp_path: Path) -> Path:
    """A project's root, with a store."""
    root = tmp_path / "a project"
    empty_store(root)
    (root / ".dvc").mkdir()
    return root


def copy_of_the_project(folder: Path) -> Path:
    """A git repository that holds what this one would commit, in one commit, and a store without runs."""
    listed = call("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT).stdout
    for name in filter(None, listed.split("\0")):
        if ((ROOT / name).is_file() or (ROOT / name).is_symlink()) and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    for compiled in (found for package in ("backends", "pipelines") for found in (ROOT / package).rglob("__pycache__")):
        shutil.copytree(compiled, folder / compiled.relative_to(ROOT), dirs_exist_ok=True)
    call("git", "init", "--quiet", "--initial-branch=main", cwd=folder)
    for key, value in (("user.name", "test"), ("user.email", "test@localhost")):
        call("git", "config", key, value, cwd=folder)
    call("git", "add", "--all", cwd=folder)
    call("git", "commit", "--quiet", "--message", "copy", cwd=folder)
    empty_store(folder)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A fresh copy of the project."""
    return copy_of_the_project(tmp_path / "project")
