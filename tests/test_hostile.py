"""Files that someone else made are read as data: nothing in them is ever executed, whatever loads them."""

from __future__ import annotations

import os
import pickle
import shutil

import numpy as np
import pytest

import deltarule
from pipelines.cli.app import main


class Evil:
    """Unpickled, it makes a folder called executed where the process runs."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


PICKLED = pickle.dumps(Evil())
PYTHON = "import os\nos.mkdir('executed')\n"
YAML = "seed: !!python/object/apply:os.mkdir [executed]\n"
ROWS = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n5,3,1,0.2\n"
MODEL = "flavors:\n  python_function:\n    loader_module: evil\n    code: code\n    data: data\n    env: {}\nmodel_uuid: a\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with a run on record, its exported model, and a study."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "params.yaml").write_text(
            "data: {source: iris}\nmodel: {hidden: [3]}\ntrain: {backend: reference, epochs: 1}\nvalidation: {baselines: false}\n"
        )
        deltarule.run(deltarule.load(), folder / "runs/1", track=True)
        called("export", "runs/1", "model")
        called(
            "search",
            "--name",
            "s",
            "--set",
            "search.space.model.dropout.high=0.5",
            "--set",
            "search.space.model.dropout.low=0",
            "--set",
            "search.trials=2",
            "--set",
            "search.engine=here",
        )

        called("sync")  # what is still being sent would be missing in a copy
        (folder / "id").write_text("runs/1")
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


def called(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def array(path):
    with path.open("wb") as stream:
        np.save(stream, np.array([Evil()], dtype=object), allow_pickle=True)


FILES = {
    "rows": ("runs/1/outputs/data/train/X.npy", array, ("train", "--params", "params.yaml")),
    "weights": ("runs/1/outputs/train/model.safetensors", PICKLED, ("predict", "runs/1", "rows.csv")),
    "weights, exported": ("model/artifacts/run/model.safetensors", PICKLED, ("predict", "model", "rows.csv")),
    "description": ("runs/1/outputs/data/about.json", PICKLED, ("predict", "runs/1", "rows.csv")),
    "history": ("runs/1/outputs/train/history.csv", PICKLED, ("report", "runs/1")),
    "spec": ("runs/1/params.yaml", YAML.encode(), ("run", "--params", "runs/1/params.yaml")),
    "study": ("studies/s/optuna.log", PICKLED, ("study", "show", "s")),
    "study's spec": ("studies/s/params.yaml", YAML.encode(), ("study", "show", "s")),
}


@pytest.mark.parametrize("what", FILES)
def test_a_hostile_file_is_refused_and_nothing_in_it_is_executed(project, capfd, what):
    name, content, command = FILES[what]
    (project / "rows.csv").write_text(ROWS)
    if what == "rows":
        shutil.copytree("runs/1/outputs", "outputs")
        name = name.removeprefix("runs/1/")
    assert (project / name).exists()
    content(project / name) if callable(content) else (project / name).write_bytes(content)
    code = called(*command)
    told = capfd.readouterr().err
    assert not list(project.rglob("executed")), told
    assert code in (1, 2) and "Traceback" not in told and "internal error" not in told, (code, told)


def test_the_code_of_an_exported_model_is_not_imported_to_predict(project, capfd):
    (project / "model/model.py").write_text(PYTHON)
    (project / "model/MLmodel").write_text(MODEL)
    (project / "rows.csv").write_text(ROWS)
    assert called("predict", "model", "rows.csv") == 0
    assert not list(project.rglob("executed")), capfd.readouterr().err


@pytest.mark.parametrize("command", [("register", "RUN", "--name", "shop"), ("reproduce", "RUN"), ("runs",)])
def test_the_code_of_a_recorded_model_is_not_imported(project, capfd, command):
    assert command[0] != "register" or called("register", (project / "id").read_text(), "--name", "shop") == 0
    for file in (project / ".mlflow").rglob("MLmodel"):
        (file.parent / "evil.py").write_text(PYTHON)
        (file.parent / "model.py").write_text(PYTHON)
        file.write_text(MODEL)
    run = (project / "id").read_text()
    code = called(*(run if word == "RUN" else word for word in command))
    said = capfd.readouterr().err
    assert (code == 0) is (command[0] == "runs"), said  # reproduce: it has no commit here
    assert command[0] != "register" or "are not those that the run put out" in said
    assert not list(project.rglob("executed")), said
