"""What README.md and docs/ tell people to type works as written, in a copy of this project."""

from __future__ import annotations

import csv
import json
import re
import shlex
import signal
import socket
import subprocess
import tarfile
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from conftest import BIN, PYTHON, ROOT, WARM, call, environment
from scipy import stats

from backends import get
from backends.base import Data
from backends.supervisor import fit
from pipelines.data import About
from pipelines.spec import load, trial
from pipelines.stages import RunPaths, split

pytestmark = pytest.mark.slow
PAGES = ["README.md", "docs/pipeline.md", "docs/python-api.md", "docs/search.md", "docs/your-own-data.md"]
# Needs no install in a copy, and must not make one: the virtual environment is that of the tests.
MADE = "make -o .venv/installed -o .venv/installed-dev"


def blocks(page: str, kind: str) -> list[str]:
    """What stands between a fence of this kind and the next fence."""
    parts = re.split(r"^```(\w*)\n", (ROOT / page).read_text(), flags=re.MULTILINE)
    return [
        text for number, (name, text) in enumerate(zip(parts[1::2], parts[2::2], strict=True)) if number % 2 == 0 and name == kind
    ]


def commands() -> list[str]:
    return [line[2:] for block in blocks("README.md", "console") for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.timeout(1800)
def test_every_command_of_the_readme_works(project):
    (project / ".venv/bin").mkdir(parents=True)
    for file in {file.name: file for place in filter(None, (BIN, WARM)) for file in Path(place).iterdir()}.values():
        (project / ".venv/bin" / file.name).symlink_to(file)
    spec = (project / "params.yaml").read_text()
    for long, short in (("  epochs: 30 ", "  epochs: 3 "), ("  baselines: true ", "  baselines: false ")):
        assert long in spec
        spec = spec.replace(long, short)  # what is shown here is not the numbers
    (project / "params.yaml").write_text(spec)
    call("git", "commit", "--quiet", "--all", "--message", "Few epochs", cwd=project)
    assert len(commands()) > 15
    for command in commands():
        if command == "deltarule ui":
            look_at_the_ui(project)
        elif command in ("make test", "make lint"):  # these tests, and the linters, would run again
            call("bash", "-c", command.replace("make", f"{MADE} --dry-run"), cwd=project)
        elif command.startswith("deltarule data "):  # of a file in which something must be changed
            assert call("bash", "-c", command, cwd=project, check=False).returncode == 2
        else:
            call("bash", "-c", command.replace("make", MADE, 1) if command.startswith("make ") else command, cwd=project)


def test_the_house_of_the_readme_has_every_folder_of_the_packages():
    [house] = [block for block in blocks("README.md", "") if "pipelines/  " in block]
    packages = {
        name: re.findall(r"^  (\w+)/ ", text, re.MULTILINE)
        for name, text in re.findall(r"^(\w+)/ .*\n((?:  .*\n)*)", house, re.M)
    }
    assert packages["pipelines"] and sorted(packages["pipelines"]) == folders("pipelines")
    assert {*packages["backends"], "conformance"} == {*folders("backends")}


def folders(package: str) -> list[str]:
    return sorted(path.parent.name for path in (ROOT / package).glob("*/__init__.py") if not path.parent.is_symlink())


def rows_shown(name: str) -> list[list[float]]:
    """What `cut` shows of a run's history: epoch, training loss, validation loss."""
    [shown] = re.findall(rf"^\$ cut .* runs/\*-{name}/.*\n((?:\d.*\n)+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    return [[float(cell) for cell in row.split(",")] for row in shown.splitlines()]


def test_the_numbers_of_the_readme_are_those_of_the_default_run():
    """As tests/kept has them; test_kept.py holds today's code to the same."""
    with tarfile.open(ROOT / "tests/kept/project.tar.xz") as archive:
        names = {name.partition("-default/outputs/")[2]: name for name in archive.getnames() if "-default/outputs/" in name}
        text = {file: archive.extractfile(names[file]).read().decode() for file in ("train/history.csv", "validate/metrics.json")}
    rows = list(csv.DictReader(text["train/history.csv"].splitlines()))
    last = [[float(row[key]) for key in ("epoch", "train_loss", "val_loss")] for row in rows[-3:]]
    assert rows_shown("torch") == [pytest.approx(row, rel=1e-5) for row in last]
    assert rows_shown("tensorflow") == [pytest.approx(row, rel=1e-5) for row in last]
    shown = re.findall(r"^epoch (\d+)/30  train_objective (\S+)  val_loss (\S+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(shown) == 2
    for epoch, objective, loss in shown:
        row = rows[int(epoch) - 1]
        assert [objective, loss] == [f"{float(row[key]):.4g}" for key in ("train_objective", "val_loss")]
    metrics = json.loads(text["validate/metrics.json"])
    for name in ("loss", "accuracy"):
        value, low, high = (f"{metrics[key]:.4g}" for key in (name, f"{name}_low", f"{name}_high"))
        assert f"\n{name:18} {value} [{low}, {high}]\n" in (ROOT / "README.md").read_text()


def test_the_comparison_of_the_readme_says_what_five_seeds_of_each_say(tmp_path):
    """The same ten networks as one stack, whose numbers are those of ten runs."""
    text = (ROOT / "README.md").read_text()
    shown = re.findall(r"^seed (\d), split 0: \w{8}, \w{8}  (\S+) +(\S+) +(\S+)$", text, re.MULTILINE)
    assert [row[0] for row in shown] == ["0", "1", "2", "3", "4"]
    spec = load(ROOT / "params.yaml")
    places = RunPaths(tmp_path)
    split(spec, places)
    about = About.load(places.about)
    each = [spec.override({"seed": seed, "model.activation": phi}) for phi in ("relu", "tanh") for seed in range(5)]
    data = Data(*(getattr(about.open(places.data, part), name) for part in ("train", "valid") for name in ("X", "y")))
    results = fit(get("lightning"), [trial(one, about) for one in each], data)
    relu, tanh = np.reshape([result.best["val_loss"] for result in results], (2, 5))
    assert np.transpose([relu, tanh, tanh - relu]) == pytest.approx(np.array(shown)[:, 1:].astype(float), abs=5e-4)
    found = stats.ttest_rel(tanh, relu)
    low, high = found.confidence_interval()
    said = f"{(tanh - relu).mean():.3g}, 95 % interval [{low:.3g}, {high:.3g}] by Student's t"
    assert (
        said in (ROOT / "README.md").read_text()
        and f"(p = {found.pvalue:.2g}): tanh is better." in (ROOT / "README.md").read_text()
    )


def look_at_the_ui(project: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["deltarule", "ui", "--port", str(port)]
    served = subprocess.Popen(command, cwd=project, env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", served.stdout.readline())[0]
        assert urllib.request.urlopen(address).status == 200
    finally:
        served.send_signal(signal.SIGINT)
        served.communicate(timeout=60)
    assert served.returncode == 0


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_of_a_page_works(project, page):
    for block in blocks(page, "python"):
        call(PYTHON, "-c", block, cwd=project, PYTHONPATH=".")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_and_names_is_there(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target
    for block in blocks(page, ""):
        for line in block.splitlines():
            name = shlex.split(line.split("  ")[0])
            assert not name or line.startswith(" ") or (ROOT / name[0]).exists(), line
