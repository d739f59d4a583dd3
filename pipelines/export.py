"""A run as an MLflow model, with rows that it can be tried with: what `deltarule export` does."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines import tracking
from pipelines.data.encoders import Categorical, Encoder, Flag
from pipelines.results import load_model
from pipelines.stages import StageError
from pipelines.stages.stored import files_of, names_of


def export(model: Path, folder: Path) -> None:
    """Write the run in the folder `model` into `folder`, which must not be there yet. Raises StageError."""
    network = load_model(model).networks[0]
    if os.path.lexists(folder):
        raise StageError(f"{folder} must not be there yet, and nothing is overwritten; choose another folder", exit_code=2)
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    example = {encoder.name: example_of(encoder) for encoder in network.about.preprocessing.encoders}
    answers = {name: "string" if name == "predicted" else "double" for name in names_of(network.about)}
    # As text, a category 007 stays what it is on the way through a server; whole numbers and gaps are no matter to a double.
    columns = {name: "double" if kind == "numeric" else "string" for name, kind in network.about.preprocessing.columns.items()}
    tracking.export(folder.absolute(), files_of(model), columns, answers, example)


def example_of(encoder: Encoder) -> list[Any]:
    """Values of two rows: what stands for a missing value, and the first category. No row of the data is given away."""
    if isinstance(encoder, Categorical):
        first, last = (encoder.categories[place] if encoder.categories else "" for place in (0, -1))
        return [first, last]
    if isinstance(encoder, Flag):
        return ["false", "true"]
    value = encoder.fill or 0.0
    if encoder.kind == "datetime":
        return [(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=value)).strftime("%Y-%m-%dT%H:%M:%SZ")] * 2
    return [value, value]
