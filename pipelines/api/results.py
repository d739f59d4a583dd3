"""What a run left in its folder, for people who go on from it in Python: metrics, history, predictions, the model."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import backends
from backends.weights import write_atomically
from pipelines.api.advice import in_python
from pipelines.data import Source
from pipelines.spec import DataSpec, Experiment, SpecError, load
from pipelines.stages.files import check, read_json
from pipelines.stages.networks import Network, answer, load_networks, stored_networks
from pipelines.stages.paths import RunPaths, StageError

if TYPE_CHECKING:
    from keras import Sequential as KerasSequential
    from torch.nn import Sequential

NDArray = np.ndarray[Any, np.dtype[Any]]
Columns = dict[str, list[Any]]  # name -> values; pandas.DataFrame takes it as it is


class Model:
    """A trained network that takes raw rows, or those of k folds as one: preprocessing inside, and no framework needed.

    Of folds, what is said of a row is the mean over them: of probabilities, or of targets in their own units. Each of them is a
    model of its own, `folds[0].to_torch()` and so on, with the preprocessing of its fold.
    """

    def __init__(self, *networks: Network) -> None:
        self.networks = networks

    @property
    def folds(self) -> tuple[Model, ...]:
        """A model a network."""
        return tuple(map(Model, self.networks))

    @property
    def network(self) -> Network:
        """The one network. Raises ValueError where there is one a fold."""
        if len(self.networks) > 1:
            raise ValueError(f"this model holds a network a fold ({len(self.networks)}); take one of them, such as folds[0]")
        return self.networks[0]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the raw columns that it needs; those of a matrix must come in this order."""
        return self.networks[0].about.columns

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels of the classes, sorted; empty for regression."""
        return self.networks[0].about.classes

    def predict(self, X: Any) -> NDArray:
        """Raw rows, as `inputs` takes them -> labels (n,), or targets in their own units, (n,) for one, (n, m) for several.

        A label is the likeliest class; of two, the second where it has a half at least, or what
        validation.threshold has chosen.
        """
        columns = self.answers(X)
        if self.classes:
            return columns["predicted"]
        targets = list(columns.values())
        return targets[0] if len(targets) == 1 else np.stack(targets, axis=1)

    def probabilities(self, X: Any) -> NDArray:
        """Raw rows, as `inputs` takes them -> P(class), (n, classes) as in `classes`.

        Raises ValueError for regression.
        """
        if not self.classes:
            raise ValueError("a regression has no class probabilities; use predict")
        columns = self.answers(X)
        return np.stack([columns[f"p_{name}"] for name in self.classes], axis=1)

    def answers(self, X: Any) -> dict[str, NDArray]:
        """Raw rows, as `inputs` takes them -> what `deltarule predict` writes, column -> (n,).

        These are predicted and p_CLASS each, or predicted_TARGET. Raises DataError.
        """
        return answer(self.networks, rows_of(self.networks[0], X))

    def inputs(self, X: Any) -> NDArray:
        """Raw rows -> what the network itself is given, (n, I) float32: preprocessed as the training rows were.

        X is a DataFrame, a mapping of columns, or, where all columns are numbers, a matrix. Cells are read as a file's are,
        markers and spellings of the spec included; None and NaN are missing values too. Columns that are not needed are passed
        over. Raises DataError, a ValueError, for what does not fit.
        """
        return self.network.about.preprocessing.apply(rows_of(self.network, X))

    def to_torch(self) -> Sequential:
        """The network as a plain torch.nn.Sequential: nn.Linear, activation and nn.Dropout, weights in place, in eval mode.

        It takes what `inputs` gives, in the weights' type, and gives outputs before sigmoid or softmax; those of a regression
        are in the scaled targets' units: `network.about.target_scale.undo` takes them back. Raises BackendError without torch.
        """
        backends.get("lightning")
        from backends.lightning.network import to_torch

        return to_torch(self.network.trial, self.network.flat)

    def to_keras(self) -> KerasSequential:
        """The network as a plain keras.Sequential: Input, Dense, activations and Dropout, weights in place, not compiled.

        It takes and gives what `to_torch`'s module does. Keras is on the engine that this process or KERAS_BACKEND chose, else
        on TensorFlow or JAX, whichever is installed. It was checked to predict the same. Raises BackendError without Keras.
        """
        from backends.keras import present

        backends.get(present())
        from backends.keras.network import to_keras

        return to_keras(self.network.trial, self.network.flat)


def rows_of(network: Network, X: Any) -> Source:
    """Rows that are given in Python, with the columns that a network needs."""
    from pipelines.data.rows import given

    block = DataSpec.model_validate(network.run["spec"]["data"])
    return given(X, block, network.about.preprocessing)


def load_model(folder: str | PathLike[str] = ".") -> Model:
    """The model of a run's folder (runs/..., or "." for the pipeline's), or of what `deltarule export` wrote.

    Raises StageError where there is none, or only a part of one.
    """
    return Model(*stored_networks(Path(folder)))


@dataclass(frozen=True)
class Run:
    """One run, read from its folder: of a launch (runs/...), or "." for the pipeline's own.

    Files are read when asked for.
    """

    folder: Path
    run_id: str | None = None  # in MLflow
    seconds: dict[str, float] = field(default_factory=dict)  # stage -> wall time
    warnings: tuple[str, ...] = ()
    complete: bool = True  # its record; else that goes on in the background
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)  # stage -> what it returned, of this launch

    @cached_property
    def experiment(self) -> Experiment:
        """The spec that was run."""
        return load(Path(self.folder) / "params.yaml")

    @property
    def places(self) -> RunPaths:
        """Every path of the run."""
        return RunPaths(Path(self.folder))

    @property
    def figures(self) -> dict[str, bytes]:
        """Name -> PNG, those of the report. Raises StageError if nothing was trained."""
        from pipelines.report import figures

        return figures(self._need(self.places.run).parents[2])

    def plot(self) -> Any:
        """The learning curves, as a figure of matplotlib, which notebooks show. Raises StageError if there is no epoch."""
        from pipelines.report import learning_curves

        if not self.history["epoch"]:
            raise StageError(f"{self.folder} has no epoch to draw: the run diverged within the first")
        return learning_curves(Path(self.folder))

    def _repr_html_(self) -> str | None:
        """The run in a few sentences, as a notebook shows it."""
        from pipelines.report import run_cell

        return run_cell(Path(self.folder)) if self.places.run.is_file() else None

    @in_python()
    def _need(self, path: Path, stage: str = "train") -> Path:
        return self.places.need(path, stage)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """On the validation rows, with the weights of the best epoch."""
        return read_json(self._need(self.places.report("validate") / "metrics.json", "validate"))

    @cached_property
    def test_metrics(self) -> dict[str, float]:
        """On the test rows, with NAME_low and NAME_high, the ends of 95 % intervals.

        StageError if they were not opened.
        """
        return read_json(self._need(self.places.report("test") / "metrics.json", "test"))

    @cached_property
    def history(self) -> Columns:
        """One value an epoch, of folds one fold after the other: train_loss, train_penalty, val_loss, delta_rms_1, ..."""
        return _columns(self._need(self.places.history), text=())

    @cached_property
    def predictions(self) -> Columns:
        """One value a validation row: its number in the source, its label, what was predicted, probabilities."""
        text = ("label", "predicted") if self.model.classes else ()
        return _columns(self._need(self.places.report("validate") / "predictions.csv", "validate"), text)

    @cached_property
    def model(self) -> Model:
        """The weights of the best epoch, ready for raw rows; with folds, their networks as one."""
        with in_python():
            return Model(*load_networks(self.experiment, self.places))

    def write_report(self, path: Path) -> None:
        """The page of the run, whole or not at all. Raises StageError if nothing was trained there."""
        from pipelines.report import figures, run_page

        folder = Path(self.folder)
        if not folder.is_dir():
            such = "such as runs/..., or . for the pipeline's"
            raise StageError(f"RUN_FOLDER must be the folder of a run, {such}; found none at {folder}", 2)
        for needed, command in ((self.places.about, "split"), (self.places.run, "train")):
            self.places.need(needed, command)
        try:
            spec = self.experiment
        except (SpecError, OSError):  # missing or wrong by now: a report does without what the outs do not hold of it
            spec = None
        own = folder.resolve()
        named = own.name if own.parent.name == "runs" else ""
        page = run_page(folder, figures(folder, named=named), spec, named)
        write_atomically(path, page.encode())


def _columns(path: Path, text: tuple[str, ...]) -> Columns:
    """A CSV file of numbers by column; whole numbers as int, the columns named in `text` as they are."""
    with check(path).open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    read = [str if name in text else _number for name in header]
    return {name: [read[place](row[place]) for row in rows] for place, name in enumerate(header)}


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
