"""MLflow's pages in a real Chromium without a screen: what tests look at, and what the screenshots in docs/ show."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 60  # until something must have appeared: the machine may be busy
WIDTH, HEIGHT = 1440, 720
# MLflow's assistant would open over the right side of the first page. Its pages remember that it was there and was closed.
SEEN_BEFORE = {"mlflow.assistant.panelOpen_v1": "false", "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"}
PICTURE_BYTES = 100_000
WORKFLOW = "workflowType=machine_learning"


@contextmanager
def browser() -> Iterator[Any]:
    """A Chromium of the system, until the end of the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield chromium
        finally:
            chromium.close()


class Pages:
    """One tab, as a newcomer has it: no page was visited before."""

    def __init__(self, chromium: Any, link: str) -> None:
        """`link`: to the table of runs, as `deltarule ui` prints it."""
        self.link, self.address = link, link.partition("/#")[0]
        self.experiment_id = link.partition("/experiments/")[2].partition("/")[0]
        self._context = chromium.new_context(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce")
        self._context.set_default_timeout(SECONDS * 1000)
        self._context.add_init_script(
            f"Object.entries({json.dumps(SEEN_BEFORE)}).forEach(([k, v]) => localStorage.setItem(k, v))"
        )
        self.tab = self._context.new_page()

    def close(self) -> None:
        """End the tab."""
        self._context.close()

    def open(self, page: str) -> None:
        """A page by what stands behind the address of the server."""
        self.tab.goto("about:blank")  # else only what follows # would change, and nothing be loaded
        self.tab.goto(f"{self.address}/{page}")

    # -- the table of runs

    def runs(self) -> None:
        """The table, by the link that `deltarule ui` prints."""
        self.open(self.link.removeprefix(f"{self.address}/"))
        self.tab.locator(".ag-center-cols-container [role=row]").first.wait_for()

    def columns(self) -> list[str]:
        """Heads of the columns that can be seen."""
        heads = self.tab.locator(".ag-header-row-column [role=columnheader]").all_inner_texts()
        return list(dict.fromkeys(text.strip() for text in heads if text.strip()))  # each is there twice: a tooltip's too

    def names(self) -> list[str]:
        """Names of the runs whose rows can be seen, from above."""
        rows = self.tab.locator("[role=row]").filter(has=self.tab.locator("a[href*='/runs/']")).all()
        placed = {int(row.get_attribute("row-index")): row.locator("a[href*='/runs/']").first.inner_text() for row in rows}
        return [name for _, name in sorted(placed.items())]

    def row_of(self, name: str) -> Any:
        """The row of a run, of which a table has several parts."""
        return self.tab.locator("[role=row]").filter(has=self.tab.get_by_role("link", name=name, exact=True)).first

    def cells(self, name: str) -> dict[str, str]:
        """Column -> what stands in it, of the row of a run."""
        index = self.row_of(name).get_attribute("row-index")
        cells = self.tab.locator(f"[role=row][row-index='{index}'] [role=gridcell]").all()
        return {cell.get_attribute("col-id"): cell.inner_text().strip() for cell in cells}

    def open_study(self, name: str) -> None:
        """Click what opens the children of a run, and wait for one."""
        self.row_of(name).locator("[col-id*='Run Name'] button").first.click()
        self.tab.locator("a[href*='/runs/']").filter(has_text=f"{name} ").first.wait_for()

    # -- a comparison

    def compare(self, run_ids: Sequence[str]) -> None:
        """The page that compares runs, once its chart is drawn."""
        runs, experiments = json.dumps(list(run_ids)), json.dumps([self.experiment_id])
        self.open(f"#/compare-runs?runs={runs}&experiments={experiments}&{WORKFLOW}")
        self.tab.locator("svg.main-svg").first.wait_for()

    def lines(self) -> int:
        """How many runs the chart of parallel coordinates was given."""
        return self.tab.evaluate(
            "[...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data)"
            ".filter(trace => trace.type === 'parcoords')[0].dimensions[0].values.length"
        )

    def dimensions(self) -> list[str]:
        """What the chart of parallel coordinates shows, from the left."""
        return self.tab.evaluate(
            "[...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data)"
            ".filter(trace => trace.type === 'parcoords')[0].dimensions.map(one => one.label)"
        )

    # -- a run

    def sections(self, run_id: str) -> list[str]:
        """Heads of the groups of charts of a run, from above."""
        self.open(f"#/experiments/{self.experiment_id}/runs/{run_id}/model-metrics?{WORKFLOW}")
        heads = self.tab.locator("[data-testid='experiment-view-compare-runs-section-header']")
        heads.first.wait_for()
        return [head.split("\n")[0] for head in heads.all_inner_texts()]

    def artifact(self, run_id: str, path: str) -> None:
        """A file of a run, chosen among its artifacts."""
        self.open(f"#/experiments/{self.experiment_id}/runs/{run_id}/artifacts/{path}?{WORKFLOW}")
        self.tab.get_by_text(path, exact=True).first.wait_for()

    def framed(self) -> Any:
        """What the frame shows in which MLflow puts an HTML file."""
        return self.tab.frame_locator("iframe").locator("body")

    def picture(self) -> bytes:
        """PNG of what can be seen, in 256 colours: a third of the bytes."""
        from PIL import Image

        few = io.BytesIO()
        with Image.open(io.BytesIO(self.tab.screenshot(animations="disabled"))) as taken:
            # By octree: the other way takes nearly all colours for the greys, and gives every run's dot the same.
            taken.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(few, "PNG", optimize=True)
        return few.getvalue()
