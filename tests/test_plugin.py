"""A backend of another distribution: installed by pip, found by its entry point, proved by its own three-line test file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
PLUGIN = Path(__file__).parent / "plugin"
BIN = Path(sys.executable).parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a process that has the plug-in: pip put it into a folder of its own, which is on the path."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "source")  # pip builds within the source
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--target", str(folder / "site"), str(folder / "source")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return os.environ | {"PYTHONPATH": str(folder / "site")}


def test_backends_are_listed_with_what_they_compute_on_one_that_pip_installed_beside_ours(installed, tmp_path):
    (tmp_path / "backends").mkdir()  # a folder of the same name where it is called: not ours
    (tmp_path / "backends/__init__.py").write_text("raise SystemExit(99)")
    done = subprocess.run([BIN / "deltarule", "backends", "--json"], cwd=tmp_path, env=installed, capture_output=True, text=True)
    found = {backend["name"]: backend for backend in json.loads(done.stdout)["backends"]}
    assert found["torch"]["installed"], found["torch"]["message"]
    assert found["torch"]["devices"] == ["cpu"] and "torch" in found["torch"]["versions"]
    assert {"reference", "lightning", "keras", "keras-jax"} <= set(found)
    assert found["reference"]["installed"] and found["reference"]["devices"] == ["cpu"]
    for backend in found.values():
        assert backend["versions"] if backend["installed"] else "install" in backend["message"]


def test_it_trains_a_spec_by_its_name(installed, tmp_path):
    code = (
        "from backends import get\n"
        "from backends.conformance import make_data, make_trial\n"
        "from backends.supervisor import fit\n"
        "print(fit(get('torch'), [make_trial('binary', epochs=2, backend='torch')], make_data('binary'))[0].message)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=installed, capture_output=True, text=True)
    assert done.stdout == "completed 2 epochs\n", done.stderr


def test_its_own_three_line_test_file_passes_the_conformance_suite(installed, tmp_path):
    tests = shutil.copy2(PLUGIN / "test_torch.py", tmp_path)
    assert len(list(filter(None, Path(tests).read_text().splitlines()))) == 3
    # What the reference did is worked out once for all tests (conftest.py).
    env = installed | {"PYTHONPATH": os.pathsep.join([installed["PYTHONPATH"], str(PLUGIN.parent)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "conftest", "-W", "error", tests]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert "failed" not in done.stdout and int(done.stdout.split(" passed")[0].split()[-1]) > 90
