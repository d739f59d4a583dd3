"""split: read the source, find the task, write three parts."""

from __future__ import annotations

from typing import Any

from pipelines.data import prepare, read
from pipelines.spec import Experiment
from pipelines.stages.files import remove
from pipelines.stages.places import Places


def split(experiment: Experiment, places: Places) -> dict[str, Any]:
    """Write outputs/data; returns what it holds. Raises DataError with file, row and column for what cannot be used."""
    with places.locked():
        prepared = prepare(read(experiment.data, places.base), experiment.data)
        remove(places.data, ["about.json"])
        about = prepared.save(places.data)
    counts = {f"rows_{part}": rows for part, rows in about.rows.items()}
    return {"source": about.source, "task": about.task, "inputs": len(about.features), "outputs": about.outputs, **counts}
