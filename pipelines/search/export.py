"""A study as one text: all its trials as CSV or JSON, or one trial as a whole spec that `deltarule run --params` takes."""

from __future__ import annotations

import json
from typing import Any

from pipelines.search.adopt import chosen
from pipelines.search.records import StudyRecord
from pipelines.search.table import rows, text
from pipelines.spec import dump


def export(study: StudyRecord, form: str, number: int | None = None) -> str:
    """`form`: csv, json, or spec (of the trial of this number, or of the best). Raises StudyError if there is no such trial."""
    if form == "spec":
        return dump(study.spec.drawn(chosen(study, number).changes))
    if form == "csv":
        return text(study)
    whole: dict[str, Any] = {"study": study.name, "metrics": study.metrics, "directions": study.directions}
    whole |= {"best": study.best, "front": study.front, "trials": list(rows(study))}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
