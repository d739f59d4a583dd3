"""What a run carries: how it was begun, from what source and rows, a note, its model and files; and no secret anywhere."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import warnings
from pathlib import Path

import pandas
import pytest
from conftest import PYTHON, call, empty_store
from stored import artifacts
from synthetic_run import make
from test_source import git

import deltarule
from pipelines import tracking
from pipelines.data.parts import read_json
from pipelines.export import carry, export
from pipelines.record import events
from pipelines.record.events import carried
from pipelines.record.sync import sync
from pipelines.redact import secrets_of_the_environment
from pipelines.spec import Experiment
from pipelines.stages import RunPaths, StageError
from pipelines.tracking import LookupFailed, TrackingError, models
from pipelines.tracking.events import key_of, params

SECRET, VARIABLE = "hunter2-9c1f", "correct-horse-battery"
SPEC = {
    "data.source": "data/kinds, all.csv", "data.target": "kind", "data.columns": {"grade": "categorical", "day": "datetime"},
    "train.backend": "reference", "train.epochs": 2, "model.hidden": [4], "validation.baselines": False,
}  # fmt: skip


def rows(count: int = 90) -> pandas.DataFrame:
    draw = random.Random(0)
    return pandas.DataFrame(
        {
            "size (cm), %": [draw.gauss(n % 2, 0.5) if n % 9 else None for n in range(count)],
            "count": [n % 7 for n in range(count)],
            "grade": [1 + n % 3 for n in range(count)],
            "colour": [("red", "blue", None)[n % 3] for n in range(count)],
            "day": [f"2024-{1 + n % 12:02d}-03" for n in range(count)],
            "fits": [n % 4 == 0 for n in range(count)],
            "kind": [("one", "two")[n % 2] for n in range(count)],
        }
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project in git, with secrets wherever people leave them, in which two runs were made."""
    folder = tmp_path_factory.mktemp("a project")
    for name in ("data", ".dvc"):
        (folder / name).mkdir()
    rows().to_csv(folder / "data/kinds, all.csv", index=False)
    for name, text in {"params.yaml": "seed: 0\n", "dvc.yaml": "stages: {}\n", "dvc.lock": "a: b\n", "a.py": "x = 1\n"}.items():
        (folder / name).write_text(text)
    (folder / ".gitignore").write_text(".mlflow/\n.deltarule/\nruns/\noutputs/\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    git(folder, "remote", "add", "origin", f"https://me:{SECRET}@example.org/a/b.git")
    (folder / "b.py").write_text("x = 3\n")
    (folder / "a.py").write_text(f"x = 2\npassword = '{SECRET}'\nname = '{VARIABLE}'\n")
    return folder


@pytest.fixture(scope="module")
def begun(project):
    """The settings under which runs are made: a store, variables that are secrets, a command with one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:///.mlflow/mlflow.db")
        patch.setenv("MY_API_KEY", VARIABLE)
        for name in ("GRACE_SECONDS", "LONGEST_SECONDS"):  # the record is looked at as soon as the run has ended
            patch.setattr(f"pipelines.record.recording.{name}", 300)
        command = ["/home/me/bin/deltarule", "run", "--set", f"tracking.uri=http://me:{SECRET}@host/x", "--name", VARIABLE]
        patch.setattr(sys, "argv", [*command, "--password", SECRET])
        patch.chdir(project)
        empty_store(project)
        secrets_of_the_environment.cache_clear()
        yield patch
        secrets_of_the_environment.cache_clear()


def spec_of(**more) -> Experiment:
    uri = f"http://{SECRET}@host/x"
    return Experiment.model_validate({"tracking": {"experiment": "tests", "uri": uri}}).override({**SPEC, **more})


@pytest.fixture(scope="module")
def run(begun, project):
    return deltarule.run(spec_of(), track=True, name=f"first token={SECRET}")


@pytest.fixture(scope="module")
def client(run, project):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{project / '.mlflow/mlflow.db'}")


@pytest.fixture(scope="module")
def recorded(client, run):
    assert not run.warnings
    return client.get_run(run.run_id)


def artifact(project, run_id, place):
    return artifacts(project, run_id) / place


def test_it_says_how_it_was_begun(recorded, project):
    tags = recorded.data.tags
    assert tags["deltarule.command"] == ("deltarule run --set 'tracking.uri=http://***@host/x' --name '***' --password '***'")
    assert tags["mlflow.source.git.commit"] == git(project, "rev-parse", "HEAD")
    assert (tags["mlflow.source.git.dirty"], tags["deltarule.diff"]) == ("true", "cut")
    assert tags["mlflow.source.git.repoURL"] == "https://***@example.org/a/b.git"
    patch = artifact(project, recorded.info.run_id, "source/uncommitted.diff").read_text()
    assert "+x = 3" in patch and patch.startswith("# left out: a.py (it holds what looks like a secret)\n")


def test_its_rows_are_inputs_by_digest_and_columns_and_the_test_rows_only_once_they_were_opened(recorded, run):
    sets = {one.tags[0].value: one.dataset for one in recorded.inputs.dataset_inputs}
    assert set(sets) == {"training", "validation"}
    hashes = json.loads((run.folder / "outputs/data/about.json").read_text())["sha256"]
    assert sets["training"].digest == hashes["train"][:36]
    assert json.loads(sets["training"].source) == {"uri": "data/kinds, all.csv"}
    columns = {one["name"]: one["type"] for one in json.loads(sets["training"].schema)["mlflow_colspec"]}
    assert columns == {
        "size (cm), %": "double", "count": "double", "grade": "string", "colour": "string", "day": "datetime", "fits": "boolean",
        "kind (target)": "string",
    }  # fmt: skip
    assert json.loads(sets["training"].profile)["num_rows"] == 54


def test_its_description_says_what_it_was(recorded):
    *_, what, ended, result, opened, begun, kept = recorded.data.tags["mlflow.note.content"].splitlines()
    assert what.startswith("- A network (hidden layers 4, relu) was trained on 54 rows of kinds, all.csv to tell ")
    assert "completed 2 epochs" in ended and "On 18 validation rows: accuracy 0." in result
    assert opened == "- The test rows have not been opened."
    assert "`deltarule run" in begun and "source/uncommitted.diff" in begun and "runs:/" in kept


def test_params_are_flat_and_dotted_whatever_columns_are_called(recorded):
    kept = recorded.data.params
    assert (kept["model.hidden"], kept["train.clip_norm"], kept["data.columns.grade"]) == ("[4]", "null", "categorical")
    assert kept["tracking.uri"] == "http://***@host/x"


def test_params_keep_to_what_mlflow_takes_and_lose_none():
    found = params(
        {
            "data.columns.size (cm), %": "numeric", "data.columns.size [cm]; %": "numeric", "data.columns.a//b": "ignore",
            "data.columns.password": "ignore", "data.spellings.password.x": SECRET, "search.space": [f"{n}" for n in range(3000)],
            "l1": [0.0, 1e-4], "none": None, f"data.columns.{'x' * 300}": "numeric", f"data.columns.{'x' * 301}": "numeric",
        }
    )  # fmt: skip
    assert len(found) == 10 and all(len(key) <= 250 and len(value) <= 6000 for key, value in found.items())
    assert {"data.columns.size (cm), %", "data.columns.size [cm]; %", "data.columns.a//b"} <= {*map(key_of, found)}
    assert (found["data.columns.password"], found["data.spellings.password.x"]) == ("ignore", "***")
    assert found["search.space"].endswith("(cut, the whole is in params.yaml)")
    assert (found["l1"], found["none"]) == ("[0.0, 0.0001]", "null")
    from mlflow.utils.validation import _validate_param

    for key, value in found.items():
        _validate_param(key, value)


def test_the_pipelines_run_has_its_lock_file_and_the_note_follows_what_is_opened(begun, project, client):
    places = make(project, stages=("data", "train", "validate"))
    experiment = Experiment.model_validate({"tracking": {"experiment": "tests"}})
    run_id = sync(places, experiment)
    assert "The test rows have not been opened" in client.get_run(run_id).data.tags["mlflow.note.content"]
    make(project, stages=("test",))
    assert sync(places, experiment) == run_id
    found = client.get_run(run_id)
    assert (
        "On 20 test rows, opened once all choices were made: accuracy 0.9 (95 % interval 0.85 to 0.94)"
        in found.data.tags["mlflow.note.content"]
    )
    assert {one.tags[0].value for one in found.inputs.dataset_inputs} == {"training", "validation", "testing"}
    assert len(found.data.tags["deltarule.dvc_lock"]) == 64
    assert artifact(project, run_id, "dvc.lock").read_text() == "a: b\n"
    assert found.data.tags["mlflow.source.name"] == "dvc.yaml"


def test_a_run_that_comes_back_from_the_cache_keeps_how_it_was_begun(begun, project, client):
    """DVC restores the outs of an older run: they are not of the command and the source of now."""
    experiment = Experiment.model_validate({"tracking": {"experiment": "tests"}})
    run_id = sync(make(project, fingerprint="ab" * 16), experiment)
    before = client.get_run(run_id).data.tags
    make(project, fingerprint="cd" * 16)
    sync(RunPaths(project), experiment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["deltarule", "sync"])
        assert sync(make(project, fingerprint="ab" * 16), experiment) == run_id
    assert client.get_run(run_id).data.tags == before


# -- secrets -----------------------------------------------------------------------------------------------------------------


def test_no_secret_is_in_anything_that_tracking_writes(begun, run, project):
    """In the database, the artifacts, the event log and whatever else lies below .mlflow and .deltarule."""
    address = {"data": {"source": f"https://me:{SECRET}@example.org/rows.csv", "target": "y"}}
    spec = Experiment.model_validate({**address, "tracking": {"experiment": "tests"}})
    spec = spec.override("data.spellings", {"api_key": {"a": SECRET}})
    places = make(project / "runs/of an address", spec=spec)
    sync(RunPaths(places.root, project=project), spec, new_run=True)
    written = [p for p in project.rglob("*") if p.is_file() and {".mlflow", ".deltarule"} & {*p.relative_to(project).parts}]
    assert len(written) > 40 and any(p.name == "mlflow.db" for p in written) and any(p.name == "MLmodel" for p in written)
    for planted in (SECRET, VARIABLE):
        assert [p for p in written if planted.encode() in p.read_bytes()] == []
    told = json.dumps([(event.kind, event.values) for event in events(places, spec)])
    assert SECRET not in told and VARIABLE not in told


# -- the model and the files -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(recorded, begun, project):
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{project / '.mlflow/mlflow.db'}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about type hints in MLflow's own modules
        return mlflow.pyfunc.load_model(f"runs:/{recorded.info.run_id}/model")


CHANGES = {
    "as read": lambda frame: frame,
    "whole numbers": lambda frame: frame.assign(**{"size (cm), %": range(len(frame))}),
    "no value at all": lambda frame: frame.assign(colour=None, **{"size (cm), %": None}),
    "dates": lambda frame: frame.assign(day=pandas.to_datetime(frame.day)),
    "texts": lambda frame: frame.astype(str).replace({"nan": "", "None": "", "<NA>": ""}),
    "codes with gaps": lambda frame: frame.assign(grade=[None, *frame.grade[1:]]),
    "columns in another order": lambda frame: frame[frame.columns[::-1]],
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_model_of_a_run_takes_raw_rows_of_any_type_that_the_file_may_have(loaded, run, change):
    frame = CHANGES[change](rows(12).drop(columns="kind"))
    ours = pandas.DataFrame(run.model.answers(frame))
    assert loaded.predict(frame).equals(ours) and len(ours) == 12


def test_what_a_cell_must_be_the_model_says(loaded):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=r"row 2: column 'count' must hold .* found 'many'"):
        loaded.predict(rows(3).assign(count=["1", "many", "2"]))
    with pytest.raises(MlflowException, match=r"must have the columns of the training rows, found no 'count'"):
        loaded.predict(rows(3).drop(columns="count"))


def test_its_signature_says_what_the_columns_hold(loaded):
    """And models of others keep theirs, though one of ours is loaded beside them."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    signature = loaded.metadata.signature
    assert {one.name: one.type.name for one in signature.inputs} == {
        "size (cm), %": "double", "count": "double", "grade": "string", "colour": "string", "day": "datetime", "fits": "boolean",
    }  # fmt: skip
    other = Model(signature=ModelSignature(Schema([ColSpec("long", "count")])), metadata={"columns": {}})
    assert other.get_input_schema() is other.signature.inputs


def test_the_model_names_its_run_its_columns_and_exactly_what_it_needs_and_is_not_pickled(client, recorded, loaded, project):
    model = models.of_run(client, recorded)
    assert str(model.status) == "READY" and loaded.model_id == model.model_id
    assert [one.model_id for one in recorded.outputs.model_outputs] == [model.model_id]
    assert loaded.metadata.run_id == recorded.info.run_id and loaded.metadata.metadata["columns"]["grade"] == "categorical"
    place = project / ".mlflow/mlartifacts" / model.artifact_location.removeprefix("mlflow-artifacts:/")
    needs = (place / "requirements.txt").read_text().split()
    assert all("==" in line for line in needs) and {line.partition("==")[0] for line in needs} >= {"deltarule", "numpy", "mlflow"}
    assert (place / "input_example.json").exists()
    assert not [path for path in place.rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]


def test_the_onnx_file_says_what_goes_in(recorded, run, project):
    import onnx

    file = artifact(project, recorded.info.run_id, "onnx/network.onnx")
    about = {p.key: json.loads(p.value) for p in onnx.load(file).metadata_props}
    assert about["inputs"] == [*run.model.network.about.inputs] and about["classes"] == ["one", "two"]
    assert recorded.data.tags["deltarule.files"] == "mlflow; onnx"


def test_sending_again_makes_no_second_model_and_a_model_cut_short_is_completed(begun, run, project, client, recorded):
    places = RunPaths(run.folder, base=project, project=project)
    again = {}
    with pytest.MonkeyPatch.context() as patch:
        finalize = "mlflow.MlflowClient.finalize_logged_model"
        patch.setattr(finalize, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sync(places, run.experiment, new_run=True)
    again = sync(places, run.experiment, new_run=True)
    found = client.get_run(again)
    assert again != run.run_id and len(found.outputs.model_outputs) == 1
    assert str(models.of_run(client, found).status) == "READY"
    models.send(client, found, "model", project / "nowhere")  # nothing is left to do
    assert len(client.get_run(again).outputs.model_outputs) == 1


def test_what_cannot_be_made_costs_no_record_and_is_told(begun, run, project, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    places = RunPaths(shutil.copytree(run.folder, project / "runs/copied"), project=project)
    carry(places, ["onnx", "native"])
    [files] = places.root.glob(".deltarule/carried/*/files.json")
    told = json.loads(files.read_text())["told"]
    assert "no onnx: onnx and onnxruntime must be installed" in told
    assert "no native: the backend reference has no file format of its own" in told
    assert [event.kind for event in carried(places)] == ["tags", "artifacts", "mark"]


def test_a_model_whose_answers_would_change_without_a_secret_is_not_made(run, project, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    file = folder / "outputs/train/run.json"
    kept = read_json(file)
    kept["spec"]["data"]["spellings"] = {"token": {"a": "b"}}
    file.write_text(json.dumps(kept))
    with pytest.raises(TrackingError, match="rename the column"):
        export(folder, tmp_path / "made")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_export_writes_the_form_that_is_asked_for_and_overwrites_nothing(run, tmp_path):
    export(run.folder, tmp_path / "made", "onnx")
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["network.onnx"]
    with pytest.raises(StageError, match="must not be there yet"):
        export(run.folder, tmp_path / "made", "onnx")


@pytest.mark.slow
def test_the_native_file_computes_what_the_reference_does(run, tmp_path):
    import torch

    export(run.folder, tmp_path / "made", "torch")
    program = torch.export.load(tmp_path / "made/network.pt2").module()
    for count in (1, 12):
        X = run.model.inputs(rows(count).drop(columns="kind"))
        found = program(torch.from_numpy(X)).detach().numpy()
        assert abs(found - run.model.network.outputs(X)).max() < 1e-5


# -- the registry ------------------------------------------------------------------------------------------------------------


def test_a_runs_model_gets_a_name_and_versions(begun, run, recorded, project, client):
    where, before = (spec_of().tracking, project), os.environ["MLFLOW_TRACKING_URI"]
    first = tracking.register(*where, "first token=***", "kinds Ω")
    second = tracking.register(*where, run.run_id[:8], "kinds Ω")
    assert [(one.name, one.version, one.run_id) for one in (first, second)] == [("kinds Ω", n, run.run_id) for n in (1, 2)]
    assert os.environ["MLFLOW_TRACKING_URI"] == before
    version = client.get_model_version("kinds Ω", "2")
    assert (version.status, version.run_id) == ("READY", run.run_id)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("nothing", "m", "no run is on record under 'nothing'"),
        ("runs/of an address", "m", "has no model on record"),
        ("first", "a/b", "must hold none of"),
        ("first", " ", "not be empty"),
    ],
)
def test_what_cannot_be_registered_is_one_error(begun, run, project, text, name, message):
    with pytest.raises(LookupFailed, match=message) as caught:
        tracking.register(spec_of().tracking, project, text, name)
    assert caught.value.exit_code == 2


def test_where_no_store_is_none_is_made(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(LookupFailed, match="there is no store"):
        tracking.register(Experiment().tracking, tmp_path, "x", "m")
    assert not [*tmp_path.iterdir()]


# -- every backend -----------------------------------------------------------------------------------------------------------


NATIVE = {"lightning": "network.pt2", "keras": "network.keras", "keras-jax": "network.keras"}
# `mlflow models predict`, in one process that has imported none of ours: to import MLflow's commands takes seconds.
PREDICT = """
import sys
from mlflow.cli import cli
for run_id in sys.argv[1:]:
    given = ["-m", f"runs:/{run_id}/model", "-t", "csv", "-i", "rows.csv", "-o", f"{run_id}.json"]
    cli(["models", "predict", "--env-manager", "local", *given], standalone_mode=False)
"""


@pytest.mark.slow
def test_mlflow_predicts_with_the_model_of_every_backend(project, tmp_path):
    """test_new.py serves one of the reference; what answers is the same code."""
    (tmp_path / "params.yaml").write_text((Path(__file__).parents[1] / "params.yaml").read_text())
    shutil.copytree(project / "data", tmp_path / "data")
    rows(6).to_csv(tmp_path / "rows.csv", index=False)
    store = f"sqlite:///{tmp_path / '.mlflow/mlflow.db'}"
    for backend in NATIVE:
        settings = {
            "data.source": "data/kinds, all.csv", "data.target": "kind", "data.columns": "{grade: categorical}",
            "train.epochs": "2", "train.backend": backend, "model.hidden": "[4]", "tracking.files": "[mlflow, native]",
            "validation.baselines": "false",
        }  # fmt: skip
        changes = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        call("deltarule", "run", "--name", backend, *changes, cwd=tmp_path, MLFLOW_TRACKING_URI=store)
    on_record = json.loads(call("deltarule", "runs", "--json", cwd=tmp_path, MLFLOW_TRACKING_URI=store).stdout)["runs"]
    run_ids = {run["name"]: run["id"] for run in on_record}
    said = call(PYTHON, "-P", "-c", PREDICT, *run_ids.values(), cwd=tmp_path, MLFLOW_TRACKING_URI=store)
    for backend, run_id in run_ids.items():
        [native] = (artifacts(tmp_path, run_id) / "native").iterdir()
        assert native.name == NATIVE[backend]
        assert (tmp_path / f"{run_id}.json").exists(), said
        found = json.loads((tmp_path / f"{run_id}.json").read_text())["predictions"]
        [folder] = (tmp_path / "runs").glob(f"*-{backend}")
        ours = call("deltarule", "predict", folder, "rows.csv", cwd=tmp_path).stdout.splitlines()[1:]
        assert [one["predicted"] for one in found] == [line.split(",")[0] for line in ours] and len(ours) == 6
