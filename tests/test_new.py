"""A project of one's own: made from a file by the installed tool, run by DVC, and nothing in it is taken for ours."""

from __future__ import annotations

import csv
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from zipfile import ZipFile

import pytest
from conftest import ROOT
from installed import Tool, install

pytestmark = pytest.mark.slow
STAGES = ["split", "train", "validate", "test", "record"]
QUICK = {"hidden": "[8]", "epochs": "2", "backend": "reference", "baselines": "false"}


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def set_value(project: Path, **changes: str) -> None:
    """Change `key: old` to `key: new` in params.yaml, wherever that key stands first."""
    text = (project / "params.yaml").read_text()
    for key, value in changes.items():
        text, found = re.subn(rf"^(\s*{key}:) +[^#\n]*", rf"\1 {value} ", text, count=1, flags=re.MULTILINE)
        assert found, key
    (project / "params.yaml").write_text(text)


def numbers(path: Path, rows: int = 90, seed: int = 0) -> Path:
    draw = random.Random(seed)
    lines = [f"{draw.gauss(i % 3, 0.5):.3f},{draw.gauss(0, 1):.3f},{('rose', 'tulip', 'iris')[i % 3]}" for i in range(rows)]
    path.write_text("\n".join(["length,width,kind", *lines]) + "\n")
    return path


def commit(tool: Tool, folder: Path) -> None:
    for command in ("add --all", "-c user.name=me -c user.email=me@localhost commit --quiet --message first"):
        tool("git", *command.split(), cwd=folder)


@pytest.fixture(scope="session")
def tool(tmp_path_factory) -> Tool:
    return install(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="session")
def once(tool, tmp_path_factory) -> Path:
    """A project made by the tool, its pipeline run once."""
    place = tmp_path_factory.mktemp("own")
    tool("deltarule", "new", "flowers", "--data", numbers(place / "flowers.csv"), "--target", "kind", cwd=place)
    set_value(place / "flowers", **QUICK)
    assert ran(tool("dvc", "repro", cwd=place / "flowers")) == STAGES
    return place / "flowers"


@pytest.fixture
def own(once, tmp_path) -> Path:
    return shutil.copytree(once, tmp_path / "flowers", symlinks=True)


def test_the_wheel_has_every_module_and_nothing_else(tool):
    ours = [
        *ROOT.glob("*.py"),
        *(ROOT / "backends").rglob("*.py"),
        *(ROOT / "pipelines").rglob("*.py"),
        *ROOT.glob("pipelines/report/templates/*.html"),
        *ROOT.glob("pipelines/new/template/*"),
        *(ROOT / package / "py.typed" for package in ("backends", "pipelines")),
    ]
    wanted = {path.relative_to(ROOT).as_posix() for path in ours if path.parent.name != "keras-jax"}  # which is a link
    names = ZipFile(tool.wheel).namelist()
    held = {name for name in names if ".dist-info/" not in name}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert held == wanted and "backends/keras/jax.py" in held and "backends/conformance/__init__.py" in held


def test_the_tool_sees_no_source_of_ours(tool, tmp_path):
    said = tool(tool.python, "-P", "-c", "import deltarule, pipelines, backends as b; print(b.__file__)", cwd=tmp_path)
    assert Path(said.strip()).is_relative_to(tool.folder)


def test_the_tool_makes_a_report_from_its_own_templates(tool, own):
    tool("deltarule", "report", cwd=own)
    assert "<h2>How good it is</h2>" in (own / "outputs/report.html").read_text()


def test_nothing_runs_again(tool, own):
    assert ran(tool("dvc", "repro", cwd=own)) == [] and tool("dvc", "status", "--quiet", "dvc.yaml", cwd=own) == ""


def test_the_ways_of_dvc_run_nothing_again_and_what_they_restore_is_on_record_once(tool, own, tmp_path):
    set_value(own, trials="2", generation="2")
    tool("dvc", "repro", "studies/dvc.yaml", cwd=own)
    tool("dvc", "remote", "add", "--default", "store", tmp_path / "remote", cwd=own)
    commit(tool, own)
    tool("dvc", "push", cwd=own)
    clones = [tmp_path / name for name in ("one", "two")]
    for clone in clones:
        tool("git", "clone", "--quiet", own, clone, cwd=tmp_path)
    assert [ran(tool("dvc", "repro", option, cwd=clones[0])) for option in ("--allow-missing", "--pull")] == [[], []]
    for verb in ("pull", "checkout"):
        tool("dvc", verb, cwd=clones[1])
    for _ in range(2):
        tool("deltarule", "sync", cwd=clones[1])
    assert len(tool("deltarule", "runs", "--json", cwd=clones[1]).splitlines()) == 1
    for place in (own, *clones):
        assert tool("dvc", "status", "--quiet", cwd=place) == "" == tool("git", "status", "--porcelain", cwd=place)


def test_what_its_readme_says_works_in_that_order(tool, own):
    """But for the two servers; `mlflow models serve` is asked below."""
    set_value(own, trials="2", generation="2")
    shutil.copy(own / "data/flowers.csv", own / "new.csv")
    commands = re.findall("`((?:dvc|deltarule|git|mlflow) [^`]+)`", (own / "README.md").read_text())
    assert len(commands) == 18 and "mlflow models serve --env-manager local -m served" in commands
    for command in commands:
        if not command.startswith(("mlflow", "deltarule ui")):
            names = {f"GIT_{who}_{what}": "me@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
            tool("bash", "-c", command, cwd=own, **names)
    assert (own / "predicted.csv").is_file() and (own / "served/MLmodel").is_file()


HOSTILE = "raise SystemExit('the wrong package was imported')\n"


@pytest.fixture
def hostile(own) -> Path:
    """The project with folders and files of its own that are named as ours are."""
    for name in ("pipelines", "backends"):
        (own / name).mkdir()
        for module in ("__init__", "cli", "worker"):
            (own / name / f"{module}.py").write_text(HOSTILE)
    (own / "deltarule.py").write_text(HOSTILE)
    set_value(own, epochs="1", trials="4", generation="4", workers="2", engine="processes")
    return own


def test_what_dvc_unpickles_lies_below_a_folder_of_its_owner_alone(tool, own):
    place = Path(re.search(r"Repo.site_cache_dir: (.+)", tool("dvc", "doctor", cwd=own))[1])
    assert any(above.stat().st_mode & 0o777 == 0o700 and above.stat().st_uid == os.getuid() for above in place.parents[:2])


@pytest.mark.parametrize(
    "command",
    [
        "dvc repro --force --single-item train",
        "deltarule run --set train.backend=lightning --set train.devices=2",
        "deltarule search",
        "deltarule parity --backends lightning --steps 1 --precision float64",
    ],
)
def test_folders_that_are_named_as_ours_are_not_taken_for_ours(tool, hostile, command, monkeypatch):
    monkeypatch.setenv("DELTARULE_COLD", "1")  # what Python looks for when it starts is the point
    assert "wrong package" not in tool(*command.split(), cwd=hostile, PYTHONPATH=".")


def test_a_new_version_runs_again_what_it_may_change(tool, own):
    [metrics] = (tool.folder / "lib").glob("python*/site-packages/pipelines/stages/metrics.py")
    text = metrics.read_text()
    try:
        metrics.write_text(f"{text}\n# changed\n")
        said = tool("deltarule", "code", cwd=own)
        assert "code.yaml was of other code of deltarule; `dvc repro` re-runs what this one may change" in said
        assert ran(tool("dvc", "repro", cwd=own)) == ["train", "validate", "test", "record"]
        assert "code.yaml" not in tool("deltarule", "code", cwd=own)
    finally:
        metrics.write_text(text)


def test_a_changed_file_is_seen_also_where_dvc_tracks_it(tool, own):
    tool("dvc", "add", "data/flowers.csv", cwd=own)
    assert ran(tool("dvc", "repro", cwd=own)) == []
    numbers(own / "data/flowers.csv", seed=1)
    assert ran(tool("dvc", "repro", cwd=own)) == STAGES


def test_another_file_that_the_spec_names_is_seen(tool, own):
    numbers(own / "elsewhere.csv", seed=1)
    set_value(own, source="elsewhere.csv")
    assert ran(tool("dvc", "repro", cwd=own)) == STAGES


def test_test_rows_may_be_a_file_of_their_own(tool, tmp_path):
    for name, rows in (("learn", 90), ("judge", 30)):
        numbers(tmp_path / f"{name}.csv", rows)
    tool("deltarule", "new", "two", "--data", "learn.csv", "--test", "judge.csv", "--target", "kind", cwd=tmp_path)
    two = tmp_path / "two"
    set_value(two, **QUICK)
    assert ran(tool("dvc", "repro", cwd=two)) == STAGES
    about = json.loads((two / "outputs/data/about.json").read_text())
    assert about["rows"]["test"] == 30 and sum(about["rows"].values()) == 120
    numbers(two / "data/judge.csv", 30, seed=1)
    assert ran(tool("dvc", "repro", "split", cwd=two)) == ["split"]
    assert "data/judge.csv" in tool("dvc", "status", "studies/dvc.yaml", cwd=two)


def test_experiments_run_in_a_folder_of_a_larger_repository(tool, tmp_path):
    """Its runs are on record in the project, also those of DVC's temporary copies; DVC's repository is the outer one."""
    tool("git", "init", "--quiet", cwd=tmp_path)
    tool("dvc", "init", "--quiet", cwd=tmp_path)
    project = tmp_path / "deep/flowers"
    said = tool("deltarule", "new", "deep/flowers", "--data", numbers(tmp_path / "f.csv"), "--target", "kind", cwd=tmp_path)
    assert "initialised" not in said and not (project / ".dvc").exists() and not (project / ".git").exists()
    set_value(project, **QUICK)
    commit(tool, tmp_path)
    tool("dvc", "exp", "run", "--temp", "-S", "seed=1", cwd=project)
    assert (project / ".mlflow/mlflow.db").is_file() and not (tmp_path / ".mlflow").exists()
    assert "data/f.csv" in (project / "params.yaml").read_text()
    tool("deltarule", "run", "--name", "beside", cwd=project)
    assert [*project.glob("runs/*-beside")]


# -- what was trained is used ------------------------------------------------------------------------------------------------


def test_a_file_is_answered_by_the_pipelines_model_and_by_a_runs(tool, own):
    tool("deltarule", "run", "--name", "beside", cwd=own)
    [run] = own.glob("runs/*-beside")
    answers = [tool("deltarule", "predict", model, "data/flowers.csv", cwd=own) for model in (".", run)]
    assert answers[0] == answers[1]
    header, *lines = answers[0].splitlines()
    assert header == "predicted,p_iris,p_rose,p_tulip" and len(lines) == 90


def test_a_served_model_answers_as_predict_does(tool, own, tmp_path):
    """Raw rows in, also where the server is started beside a folder `pipelines/`; nothing in it was pickled."""
    for name in ("pipelines", "backends"):
        (own / name).mkdir()
        (own / name / "__init__.py").write_text(HOSTILE)
    tool("deltarule", "export", ".", "served", cwd=own)
    assert not [path for path in (own / "served").rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]
    assert not [path for path in (own / "served").rglob("*") if path.is_file() and str(tmp_path) in path.read_text("latin-1")]
    told = [*csv.DictReader(tool("deltarule", "predict", "served", "data/flowers.csv", cwd=own).splitlines())]
    rows = [*csv.DictReader((own / "data/flowers.csv").read_text().splitlines())]
    with served(tool, own) as address:
        answers = posted(address, {"dataframe_records": [{name: row[name] for name in ("width", "length")} for row in rows]})
        typed = posted(address, {"dataframe_records": [{"width": 1, "length": None}]})
        text = posted(address, (own / "data/flowers.csv").read_text(), "text/csv")
    assert [answer["predicted"] for answer in answers] == [row["predicted"] for row in told]
    assert all(
        answer["p_rose"] == pytest.approx(float(row["p_rose"]), abs=1e-6) for answer, row in zip(answers, told, strict=True)
    )
    assert text == answers
    assert set(typed[0]) == {"predicted", "p_iris", "p_rose", "p_tulip"}


# What these print is the same on every machine.
EXACT = ("head", "sed", "deltarule data", "deltarule new", "deltarule export")


def test_every_command_of_the_walk_works_as_shown(tool, tmp_path):
    """From an untidy file to a served model, in an empty folder, by the installed tool alone."""
    shutil.copy2(ROOT / "docs/orders.csv", tmp_path)
    blocks = re.findall(r"^```console\n(.*?)^```", (ROOT / "docs/your-own-data.md").read_text(), re.MULTILINE | re.DOTALL)
    steps = [step.partition("\n") for block in blocks for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    assert len(steps) > 14
    folder, names = (
        tmp_path,
        {f"GIT_{who}_{what}": "me@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    )
    for command, _, shown in steps:
        if command.startswith("cd "):
            folder = folder / command[3:]
        elif command.startswith("mlflow models serve"):
            continue
        elif command.startswith("curl"):
            with served(tool, folder) as address:
                said = tool("bash", "-c", command.replace("127.0.0.1:5001", address), cwd=folder, no_proxy="127.0.0.1")
            assert [row["predicted"] for row in json.loads(said)["predictions"]] == re.findall(r'"predicted": "(\w+)"', shown)
        else:
            failing = 255 if "ERROR: failed to reproduce" in shown else 2 if "error: " in shown else 0
            said = tool("bash", "-c", command, cwd=folder, code=failing, **names)
            lines = [line for line in shown.splitlines() if line != "..."]
            if command.startswith(EXACT) or failing:
                assert [line for line in lines if line not in said.splitlines()] == [], said
            else:
                assert [line for line in lines if not any(alike(line, one) for one in said.splitlines())] == [], said


def alike(shown: str, said: str) -> bool:
    """Whether two lines have the same words, and numbers that another processor may have made."""
    number = r"-?\d+\.\d+(?:e-?\d+)?"
    numbers = [[float(one) for one in re.findall(number, line)] for line in (shown, said)]
    return re.sub(number, "", shown) == re.sub(number, "", said) and numbers[0] == pytest.approx(numbers[1], rel=5e-3)


@contextmanager
def served(tool: Tool, folder: Path) -> Iterator[str]:
    """The address of `mlflow models serve` on folder/served."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["mlflow", "models", "serve", "--env-manager", "local", "-m", "served", "--port", str(port)]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=tool.environment(), stdout=log, stderr=log, start_new_session=True)
        try:
            yield awaited(server, port, folder / "server.log")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def awaited(server: subprocess.Popen, port: int, log: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection, suppress(OSError):
            connection.request("GET", "/ping")
            return f"127.0.0.1:{port}"
        time.sleep(0.2)
    raise AssertionError(f"the server does not answer:\n{log.read_text()}")


def posted(address: str, content: dict | str, kind: str = "application/json") -> list[dict]:
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request(
        "POST", "/invocations", content if isinstance(content, str) else json.dumps(content), {"Content-Type": kind}
    )
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    assert response.status == 200, text
    return json.loads(text)["predictions"]
