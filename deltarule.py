"""The notebook's way in: load an experiment, change values, run it; look at metrics, history, predictions and the model.

    import deltarule
    experiment = deltarule.load("params.yaml").override("model.activation", "tanh")
    run = deltarule.run(experiment)
    run.metrics["accuracy"], run.history["val_loss"], run.model.predict(rows)
    study = deltarule.search(experiment, trials=20)

Nothing of its own: the work lives in pipelines/. Optuna is imported with the first study, not with this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends import BackendError
from pipelines.data import DataError
from pipelines.results import Model, Run, load_model
from pipelines.spec import Experiment, SpecError
from pipelines.spec import load as _load
from pipelines.stages import StageError

if TYPE_CHECKING:
    import optuna

    from pipelines.search import StudyError as StudyError
    from pipelines.search.evaluate import Report
    from pipelines.search.records import StudyRecord

__all__ = [
    "BackendError", "DataError", "Experiment", "Model", "Run", "SpecError", "StageError", "StudyError", "evaluate", "load",
    "load_model", "objective", "open_study", "run", "search",
]  # fmt: skip


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


def search(
    experiment: Experiment,
    *,
    name: str | None = None,
    trials: int | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> StudyRecord:
    """Top a study up to `trials` trials in all (search.trials unless given), in studies/NAME of the project; what it found.

    A study of that name and spec is continued. `warn` is told what went wrong with MLflow. Raises StudyError, SpecError,
    DataError, BackendError, EngineError and StorageError.
    """
    from pipelines.search import search as carry_out

    return carry_out(experiment, name=name, trials=trials, warn=warn)


def evaluate(experiment: Experiment, folder: str | PathLike[str] = ".", *, seeds: int = 15, test: bool = False) -> Report:
    """Train under `seeds` seeds as one stack, on the rows that split put below `folder`; means, sd and 95 % intervals.

    `test` opens the test rows as the test stage would. Raises StageError.
    """
    from pipelines.search.evaluate import evaluate as train_all
    from pipelines.stages import Places

    return train_all(experiment, Places(Path(folder)), seeds=seeds, test=test)


def objective(experiment: Experiment) -> Callable[[Any], float | tuple[float, ...]]:
    """A function of one Optuna trial, for a `study.optimize` of your own: draws from search.space, trains, returns the value."""
    from pipelines.search.objective import objective as function

    return function(experiment)


def open_study(name: str, experiment: Experiment) -> optuna.Study:
    """The Optuna study of a name, as `deltarule search` keeps it. Raises KeyError if there is none."""
    from pipelines.search.objective import open_study as opened

    return opened(name, experiment)


def __getattr__(name: str) -> Any:
    """StudyError, whose home brings Optuna's storages with it."""
    if name == "StudyError":
        from pipelines.search import StudyError

        return StudyError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
