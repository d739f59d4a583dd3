"""The notebook's way in: load an experiment, change values, run it; look at metrics, history, predictions and the model.

    import deltarule
    experiment = deltarule.load("params.yaml").override("model.activation", "tanh")
    run = deltarule.run(experiment)
    run.metrics["accuracy"], run.history["val_loss"], run.model.predict(rows)
    study = deltarule.search(experiment, trials=20)

Nothing of its own: the work lives in pipelines/. Optuna and scikit-learn are imported when they are needed first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends import BackendError
from pipelines.api.advice import in_python
from pipelines.api.results import Model, Run
from pipelines.api.results import load_model as _load_model
from pipelines.data import DataError
from pipelines.spec import Experiment, SpecError
from pipelines.spec import load as _load
from pipelines.stages import StageError

if TYPE_CHECKING:
    import optuna

    from pipelines.api.estimators import Classifier as Classifier
    from pipelines.api.estimators import Regressor as Regressor
    from pipelines.api.evaluate import Report
    from pipelines.api.many import Trained as Trained
    from pipelines.compare.comparison import Result
    from pipelines.search import StudyError as StudyError
    from pipelines.search.driver import Progress
    from pipelines.search.records import StudyRecord
    from pipelines.tracking.query import Recorded

__all__ = [
    "BackendError", "Classifier", "DataError", "Experiment", "Model", "Regressor", "Run", "SpecError", "StageError", "StudyError",
    "Trained", "compare", "evaluate", "load", "load_model", "objective", "open_study", "run", "runs", "search", "train_many",
]  # fmt: skip
load_model = in_python()(_load_model)


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
    resume: bool = False,
) -> Run:
    """Split, train and validate in `folder`, which must be empty or new; without one, in a new folder below runs/.

    `test` opens the test rows too; `track` puts the run into MLflow (a store that fails is told in `Run.warnings`);
    `progress` is called with the record of each epoch. With `resume` a run of this spec in `folder` that was cut short (killed,
    a full disk) goes on from its checkpoint, as it was begun. Raises SpecError, BackendError, DataError and StageError.
    """
    from pipelines.api.launch import launch

    place = None if folder is None else Path(folder)
    return launch(experiment, place, name=name, test=test, track=track, progress=progress, resume=resume)


def train_many(
    experiments: Sequence[Experiment], *, width: int = 16, progress: Callable[[int, int], None] | None = None
) -> list[Trained]:
    """Train many experiments side by side, those of one structure as stacks of at most `width` networks; in the order given.

    Each has its `history`, the error signal and the weights at the `start`, and the weights of the best and the last epoch.
    Nothing is written, and test rows are out of reach. `progress` hears how many are done, of how many. Raises SpecError,
    DataError and BackendError; a network that diverges says so in its `ended`.
    """
    from pipelines.api.many import train_many as train_all

    return train_all(experiments, width=width, progress=progress)


@in_python()
def search(
    experiment: Experiment,
    *,
    name: str | None = None,
    trials: int | None = None,
    warn: Callable[[str], None] = lambda text: None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> StudyRecord:
    """Top a study up to `trials` trials in all (search.trials unless given), in studies/NAME of the project; what it found.

    A study of that name and spec is continued. `warn` is told what went wrong with MLflow; `progress` hears where the study
    stands whenever a trial begins or ends: its `total`, `running`, `states` and `best` (value, trial). Raises StudyError,
    SpecError, DataError, BackendError, ExecutorError and StorageError.
    """
    from pipelines.search import search as carry_out

    return carry_out(experiment, name=name, trials=trials, warn=warn, on_progress=progress)


@in_python()
def evaluate(
    experiment: Experiment,
    folder: str | PathLike[str] = ".",
    *,
    seeds: int = 15,
    test: bool = False,
    train: bool = False,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> Report:
    """Train under `seeds` seeds as one stack, on the rows of the run in `folder`; means, sd and 95 % intervals.

    `test` opens the test rows as the test stage would; `train` measures on the training rows too, dropout off; `progress` is
    called with the record of each epoch, and its seed. Raises StageError.
    """
    from pipelines.api.evaluate import evaluate as train_all
    from pipelines.stages import RunPaths

    return train_all(experiment, RunPaths(Path(folder)), seeds=seeds, test=test, train=train, progress=progress)


def objective(experiment: Experiment) -> Callable[[Any], float | tuple[float, ...]]:
    """A function of one Optuna trial, for a `study.optimize` of your own: draws from search.space, trains, returns the value."""
    from pipelines.search.driver import objective as function

    return function(experiment)


def open_study(name: str, experiment: Experiment) -> optuna.Study:
    """The Optuna study of a name, as `deltarule search` keeps it. Raises KeyError if there is none."""
    from pipelines.search.records import open_study as opened

    return opened(name, experiment)


def runs(
    where: str | None = None, *, study: str | None = None, children: bool = False, experiment: Experiment | None = None
) -> list[Recorded]:
    """The runs on record, newest first, as `deltarule runs` finds them: with params, metrics and tags as plain mappings.

    In the store of `experiment`; of params.yaml unless given. Raises ValueError for an expression that cannot be meant,
    TrackingError if the store fails.
    """
    from pipelines.compare.choose import choose
    from pipelines.project import project_of

    tracking = (experiment or load()).tracking
    return choose(tracking, project_of(Path()), study=study, where=where, children=children)


@in_python()
def compare(
    *names: str,
    study: str | None = None,
    where: str | None = None,
    by: str | None = None,
    a: str | None = None,
    b: str | None = None,
    metrics: Sequence[str] = (),
    margin: float | str | None = None,
    ignore: Sequence[str] = (),
    experiment: Experiment | None = None,
) -> Result:
    """Runs side by side, and with `by`, or `a` and `b`, groups of them paired by seed and split, as `deltarule compare` does.

    `Result.comparisons` hold difference, interval, verdict and sentence of each two groups. Raises ValueError for what cannot
    be meant or compared, TrackingError if the store fails.
    """
    from pipelines.compare.comparison import compare as set_side_by_side
    from pipelines.compare.pairs import Grouping

    asked = Grouping(by, a, b, tuple(metrics), None if margin is None else str(margin), tuple(ignore))
    grouping = asked if by is not None or a is not None or b is not None else None
    return set_side_by_side(experiment or load(), names, study=study, where=where, grouping=grouping)


def __getattr__(name: str) -> Any:
    """What few need, and whose home brings much with it: StudyError Optuna's storages, the estimators scikit-learn."""
    if name == "StudyError":
        from pipelines.search import StudyError

        return StudyError
    if name == "Trained":
        from pipelines.api.many import Trained

        return Trained
    if name in ("Classifier", "Regressor"):
        from pipelines.api import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
