"""split: read the source, find the task, write three parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipelines.data import PARTS, About, DataError, prepare, read
from pipelines.data.split import no_inputs
from pipelines.spec import Experiment
from pipelines.spec.to_trial import check_spec
from pipelines.stages.files import replaced
from pipelines.stages.paths import RunPaths


def split(experiment: Experiment, places: RunPaths) -> dict[str, Any]:
    """Write outputs/data; returns what it holds.

    Raises DataError with file, row and column for all that cannot be used.
    """
    check_spec(experiment)
    with places.locked():
        try:
            source = read(experiment.data, places.base)
            with replaced(places.data, ("about.json", *PARTS)) as folder:
                about = prepare(source, experiment.data, folder)
        except DataError as error:
            from pipelines.data.look import all_faults  # which looks at the table once more

            raise all_faults(error, experiment.data, places.base) from None
    return report_of(about, {**source.notes, **no_inputs(experiment.data)})


def report_of(about: About, notes: Mapping[str, str]) -> dict[str, Any]:
    """What a person is told of the data. `notes`: column -> why it is no input, though data.columns does not say so."""
    counts = {f"rows_{part}": rows for part, rows in about.rows.items()}
    known = about.each[0]
    return {
        "source": about.source,
        "task": about.task,
        "inputs": len(known.inputs),
        "outputs": about.outputs,
        **counts,
        "folds": len(about.folds),
        "kinds": dict(Counter(about.kinds[name] for name in known.columns)),
        "left_out": {name: notes.get(name, "") for name in about.left_out if name not in about.targets},
        "missing": dict(sum(map(Counter, known.missing.values()), Counter[str]())),  # column -> rows, in all parts
        "unseen": known.unseen,
        "rare": known.rare,
        "duplicates": about.duplicates,
        "rows_left_out": about.rows_left_out,
    }
