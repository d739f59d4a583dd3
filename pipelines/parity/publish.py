"""Where a report goes: a page, and the run in MLflow of the experiment that it is about."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.parity.verdict import SECTIONS, Report
from pipelines.project import project_of
from pipelines.report.parity_page import parity_page
from pipelines.spec import Experiment
from pipelines.tracking.attach import attach


def page(report: Report) -> str:
    """The report as one HTML file."""
    return parity_page(report.as_dict(), SECTIONS)


def record(experiment: Experiment, report: Report) -> str | None:
    """Put page and JSON among the artifacts of the experiment's run; its id, or None if there is no such run.

    Raises TrackingError if the store fails.
    """
    files = {
        "parity/parity.html": page(report),
        "parity/parity.json": json.dumps(report.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    each = ", ".join(f"{outcome.backend} {outcome.status}" for outcome in report.outcomes)
    tags = {"deltarule.parity": each}
    return attach(experiment.tracking, project_of(Path()), report.case["fingerprint"], files, tags)
