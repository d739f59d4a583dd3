"""The notebook's way in: load an experiment, change values, run it; look at metrics, history, predictions and the model.

    import deltarule
    experiment = deltarule.load("params.yaml").override("model.activation", "tanh")
    run = deltarule.run(experiment)
    run.metrics["accuracy"], run.history["val_loss"], run.model.predict(rows)

Nothing of its own: the work lives in pipelines/.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

from backends import BackendError
from pipelines.results import Model, Run
from pipelines.spec import Experiment, SpecError
from pipelines.spec import load as _load
from pipelines.stages import StageError

__all__ = ["BackendError", "Experiment", "Model", "Run", "SpecError", "StageError", "load", "run"]


def load(path: str | PathLike[str] = "params.yaml", overrides: Sequence[str] = ()) -> Experiment:
    """Read a spec, with overrides of the form "a.b=value". Raises SpecError with all that is wrong."""
    return _load(Path(path), overrides)


def run(
    experiment: Experiment,
    folder: str | PathLike[str] | None = None,
    *,
    test: bool = False,
    track: bool = False,
    name: str | None = None,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> Run:
    """Split, train and validate in `folder`, which must be empty or new; without one, in a new folder below runs/.

    `test` opens the test rows too; `track` puts the run into MLflow (a store that fails is told in `Run.warnings`);
    `progress` is called with the record of each epoch. Raises SpecError, BackendError, DataError and StageError.
    """
    from pipelines.launch import launch

    place = None if folder is None else Path(folder)
    done = launch(experiment, place, name=name, test=test, track=track, progress=progress)
    return Run(done.folder, done.run_id, done.seconds, tuple(done.warnings))
