"""The pictures of this folder: `python docs/screenshots/make.py`. A fresh store with 200 runs, MLflow's server, Chromium.

Half a minute to two. The same pages are looked at by tests/test_ui.py.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "tests")]

import ui_pages  # noqa: E402
import ui_store  # noqa: E402


def main() -> None:
    """Write the four pictures beside this file."""
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch)
        ui_store.fill(project)
        with ui_store.served(project) as link, ui_pages.browser() as chromium:
            pages = ui_pages.Pages(chromium, link)
            take(pages, project)


def take(pages: ui_pages.Pages, project: Path) -> None:
    """The table, a study opened, four runs compared, a report."""
    ids = launches(project)
    pages.runs()
    write("runs", pages)
    pages.open_study(ui_store.STUDY)
    write("study", pages)
    pages.compare(ids[:4])
    write("compare", pages)
    pages.artifact(ids[0], "report.html")
    pages.framed().locator("h1").first.wait_for()
    write("report", pages)


def launches(project: Path) -> list[str]:
    """Ids of the newest runs that are neither a study nor a trial; the real ones come first."""
    from mlflow import MlflowClient

    from pipelines.spec import Experiment
    from pipelines.tracking import locate

    client = MlflowClient(tracking_uri=locate(Experiment().tracking, project).uri)
    found = client.search_runs([client.get_experiment_by_name("deltarule").experiment_id], max_results=100)
    return [run.info.run_id for run in found if run.data.tags.get("deltarule.origin") == "launch"]


def write(name: str, pages: ui_pages.Pages) -> None:
    """Refuses what is too large for a repository."""
    picture = pages.picture()
    if len(picture) > ui_pages.PICTURE_BYTES:
        raise SystemExit(f"{name}.png must be below {ui_pages.PICTURE_BYTES} bytes, got {len(picture)}")
    (HERE / f"{name}.png").write_bytes(picture)
    print(f"{HERE / name}.png: {len(picture)} bytes")


if __name__ == "__main__":
    main()
