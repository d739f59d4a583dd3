"""A run is found by what people have at hand: its id or the start of it, its name, the folder of its launch."""

from __future__ import annotations

import pytest

from pipelines.tracking import LookupFailed
from pipelines.tracking.query import find_run

IDS = {"digits": "runs/1", "it's": "runs/2", "twice": "runs/3", "Ω 50%": "runs/4", "deadbeef": "runs/5", "a'b\"c\\": "runs/8"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("store")
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.create_experiment("here", artifact_location=(folder / "artifacts").as_uri())
    for name, launch in [*IDS.items(), ("twice", "runs/6")]:
        client.create_run(experiment, run_name=name, tags={"deltarule.launch": launch})
    gone = client.create_run(experiment, run_name="gone", tags={"deltarule.launch": "runs/7"}).info.run_id
    client.delete_run(gone)
    return client, experiment, gone


def named(store, text, **more):
    run = find_run(store[0], store[1], text, **more)
    return run.info.run_name, run.data.tags["deltarule.launch"]


@pytest.mark.parametrize("name", ["digits", "it's", "Ω 50%", "deadbeef", "a'b\"c\\"])
def test_a_run_is_found_by_its_name_its_id_and_the_start_of_its_id(store, name):
    run = find_run(store[0], store[1], name)
    assert run.info.run_name == name
    for text in (run.info.run_id, run.info.run_id[:10], f" {run.info.run_id[:8]} "):
        assert named(store, text) == (name, IDS[name])


@pytest.mark.parametrize("text", ["runs/1", "./runs/1/", "1", "{project}/runs/1"])
def test_a_run_is_found_by_the_folder_of_its_launch(store, text, tmp_path):
    assert named(store, text.format(project=tmp_path), project=tmp_path) == ("digits", "runs/1")


def test_a_folder_is_taken_from_where_one_stands(store, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path / "runs")
    assert named(store, "./1", project=tmp_path) == ("digits", "runs/1")
    assert named(store, "../runs/1", project=tmp_path) == ("digits", "runs/1")


@pytest.mark.parametrize(
    "text", ["", "nothing", "runs/99", "abc", "0" * 32, "00000", "a'b\"d\\", "%", "a'b_c_", "gone", "runs/7", "GONE"]
)
def test_what_names_no_run_is_refused_with_what_it_may_be(store, text):
    with pytest.raises(LookupFailed, match=r"no run is on record under .* at least 4 .* folder of a launch") as caught:
        find_run(store[0], store[1], store[2] if text == "GONE" else text)
    assert caught.value.exit_code == 2


def test_what_names_several_is_refused_with_their_ids(store):
    with pytest.raises(LookupFailed, match=r"twice must name one run, and names 2: [0-9a-f]{32} \(twice, .*, [0-9a-f]+ \(twice"):
        find_run(store[0], store[1], "twice")
