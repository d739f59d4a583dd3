"""What a newcomer sees of 200 runs of both backends and a study, in MLflow's own pages, in a real Chromium."""

from __future__ import annotations

import io
import os

import pytest
import ui_pages
import ui_store

from pipelines.spec import Experiment
from pipelines.tracking import locate

pytest.importorskip("playwright", reason="playwright is not installed: pip install 'deltarule[dev]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ui_pages.CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]
SHOWN = {"Dataset", "best_val_loss", "validate/accuracy", "model.activation", "regularization.l1", "regularization.l2",
         "model.dropout", "train.backend"}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("ui")
    theirs = [name for name in os.environ if name.startswith("MLFLOW_") and "TELEMETRY" not in name]
    kept = {name: os.environ.pop(name) for name in (*theirs, "DELTARULE_UNDRAWN") if name in os.environ}
    ui_store.fill(root)
    yield root
    os.environ.update(kept)


@pytest.fixture(scope="module")
def runs(project):
    """All runs of the store, the newest first."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=locate(Experiment().tracking, project).uri)
    return client.search_runs([client.get_experiment_by_name("deltarule").experiment_id], max_results=1000)


@pytest.fixture(scope="module")
def link(project):
    with ui_store.served(project) as link:
        yield link


@pytest.fixture(scope="module")
def chromium():
    with ui_pages.browser() as chromium:
        yield chromium


@pytest.fixture
def pages(chromium, link):
    pages = ui_pages.Pages(chromium, link)
    yield pages
    pages.close()


def test_the_store_holds_200_runs_of_both_backends_and_a_study(runs):
    assert len(runs) == ui_store.RUNS
    assert {run.data.tags["deltarule.backend"] for run in runs} == set(ui_store.LAUNCHES)
    assert sum("mlflow.parentRunId" in run.data.tags for run in runs) == ui_store.TRIALS


def test_the_table_of_runs_shows_what_tells_them_apart(pages):
    pages.tab.set_viewport_size({"width": 2 * ui_pages.WIDTH, "height": ui_pages.HEIGHT})  # what is out of sight is not there
    pages.runs()
    assert set(pages.columns()) >= SHOWN and len(pages.columns()) <= len(SHOWN) + 3  # name, time, duration
    shown = pages.cells("digits lightning")
    assert shown["params.`model.activation`"] == "relu" and shown["params.`train.backend`"] == "lightning"
    assert 0 < float(shown["metrics.`best_val_loss`"].rstrip("….")) < 3


def test_a_study_opens_into_its_trials(pages):
    pages.runs()
    before = pages.names()
    assert ui_store.STUDY in before and not any(name.startswith(f"{ui_store.STUDY} ") for name in before)
    pages.open_study(ui_store.STUDY)
    names = pages.names()
    below = names[names.index(ui_store.STUDY) + 1 :]
    assert below[0] == f"{ui_store.STUDY} {ui_store.TRIALS - 1}" and below[1] == f"{ui_store.STUDY} {ui_store.TRIALS - 2}"


def test_four_runs_are_compared_with_charts(pages, runs):
    chosen = [run for run in runs if "mlflow.parentRunId" not in run.data.tags and run.info.run_name != ui_store.STUDY][:4]
    pages.compare([run.info.run_id for run in chosen])
    text = pages.tab.locator("body").inner_text()
    assert "Comparing 4 Runs" in text and all(run.info.run_name in text for run in chosen)
    assert pages.lines() == 4 and pages.dimensions()[-1] == "train/loss"


def test_the_charts_of_a_run_open_on_the_curves(pages, runs):
    run = next(run for run in runs if run.info.run_name == "digits keras")
    sections = pages.sections(run.info.run_id)
    of_layers = ["diagnostics/dead", "diagnostics/delta_rms", "diagnostics/saturated"]
    assert [name for name in sections if name != "Model metrics"] == [*of_layers, "train", "val", "validate"]


def test_the_report_of_a_run_is_shown_among_its_artifacts(pages, runs):
    run = next(run for run in runs if run.info.run_name == "digits keras")
    pages.artifact(run.info.run_id, "report.html")
    pages.framed().locator("h1").first.wait_for()
    assert pages.framed().inner_text().strip()


def test_a_screenshot_is_a_small_png(pages):
    from matplotlib.image import imread

    pages.runs()
    picture = pages.picture()
    assert len(picture) < ui_pages.PICTURE_BYTES
    pixels = imread(io.BytesIO(picture))
    assert pixels.shape[:2] == (ui_pages.HEIGHT, ui_pages.WIDTH) and pixels.std() > 0.01
