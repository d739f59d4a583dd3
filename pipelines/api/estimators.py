"""Estimators as scikit-learn has them: `fit` is a run of a spec on the given rows; the model stays in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from pipelines import stages
from pipelines.api.results import Model, Run
from pipelines.given import free
from pipelines.spec import Experiment, load
from pipelines.stages import RunPaths
from pipelines.stages.networks import load_networks

NDArray = np.ndarray[Any, np.dtype[Any]]
KEYS = (  # of the spec, whose last part is a parameter's name
    "model.hidden", "model.activation", "model.dropout", "regularization.l1", "regularization.l2", "train.backend",
    "train.optimizer.learning_rate", "train.epochs", "train.batch_size", "seed",
)  # fmt: skip


class Estimator(BaseEstimator):  # type: ignore[misc]
    """What Classifier and Regressor share.

    `spec` is an Experiment, the path of a params.yaml, or a mapping, key -> value; the other parameters stand above it, and None
    leaves it as it is. `validation_fraction` of the rows choose the best epoch, the others train; 0: all rows do both; None: as
    data.split of the spec says, with test rows that stay closed, and 0.2 where there is no spec.

    After `fit`: `model_` (a Model), `history_` (name -> one value an epoch), `n_features_in_`, `feature_names_in_`.
    """

    classes_: NDArray  # of a Classifier

    def __init__(
        self, spec: Any = None, *, hidden: Any = None, activation: Any = None, dropout: Any = None, l1: Any = None,
        l2: Any = None, backend: Any = None, learning_rate: Any = None, epochs: Any = None, batch_size: Any = None,
        seed: Any = None, validation_fraction: float | None = None,
    ) -> None:  # fmt: skip
        for name, value in dict(locals()).items():
            if name != "self":
                setattr(self, name, value)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.multi_output = isinstance(self, Regressor)
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on X, a DataFrame or an array (n, m), and y (n,), of a Regressor also (n, targets).

        `sample_weight` (n,) counts as data.weight does. Nothing is left on disk. Raises SpecError, DataError, BackendError,
        StageError, and ValueError as scikit-learn does.
        """
        several = isinstance(self, Regressor)
        y = validate_data(self, y=y, multi_output=several, y_numeric=several)
        columns = self._columns(X, reset=True)
        check_consistent_length(y, sample_weight, *columns.values())
        changes: dict[str, Any] = {"data.positive": None}
        if sample_weight is not None:
            changes["data.weight"] = name = free("sample_weight", columns)
            columns[name] = weights_of(sample_weight)
            self._task(y[columns[name] > 0])
        changes["data.task"] = self._task(y)
        self._run(columns, y, changes)
        return self

    def _run(self, columns: dict[str, Any], y: NDArray, changes: dict[str, Any]) -> None:
        """Split and train in a folder that is gone afterwards."""
        experiment = self._experiment()
        with TemporaryDirectory() as folder:
            places = RunPaths(Path(folder), Path(folder), Path(folder))
            experiment = experiment.with_data(columns, y, target=experiment.data.target, project=places.base)
            experiment = experiment.override(changes | self._parts(experiment.data.source))
            stages.split(experiment, places)
            stages.train(experiment, places)
            self.model_ = Model(*load_networks(experiment, places))
            self.history_ = Run(places.root).history
        names = self.model_.classes
        kind = y.dtype.kind
        # data.spellings may have joined some
        if names and (kind in "OU" or len(names) < len(self.classes_)):
            self.classes_ = np.array(names, dtype="O" if kind == "O" else "U")

    def _columns(self, X: Any, reset: bool = False) -> dict[str, Any]:
        """Column -> its values. Those of an array must be numbers; a DataFrame's are the pipeline's to judge."""
        framed, least = hasattr(X, "columns"), 1 + reset
        limits = {"ensure_min_samples": least, "ensure_all_finite": "allow-nan"}
        X = validate_data(self, X, reset=reset, skip_check_array=framed, **limits)
        unnamed = [f"x{place}" for place in range(self.n_features_in_)]
        values = [X[name] for name in X.columns] if framed else X.T
        return dict(zip(getattr(self, "feature_names_in_", unnamed), values, strict=True))

    def _experiment(self) -> Experiment:
        """The spec, with the parameters laid over it."""
        spec = {} if self.spec is None else self.spec
        if isinstance(spec, Mapping):
            spec = Experiment().override(spec)
        elif not isinstance(spec, Experiment):
            spec = load(spec)
        said = {key: getattr(self, key.rpartition(".")[2]) for key in KEYS}
        said = {key: value for key, value in said.items() if value is not None}
        return spec.alone().override(said)

    def _parts(self, rows: Any) -> dict[str, Any]:
        """Which rows train and which validate: key of the spec -> value. `rows` is their file."""
        share = self.validation_fraction
        if share is None:
            if self.spec is not None:
                return {}
            share = 0.2
        if not 0 <= share < 1:
            raise ValueError(f"validation_fraction must be in [0, 1), got {share}")
        files = {"train": rows, "test": rows}  # a spec names test rows; no stage opens them here
        if share == 0:
            return {"data.source": files | {"valid": rows}}
        split = {"train": (1 - share) / 2, "valid": share / 2, "test": 0.5}
        return {"data.source": files} | {f"data.split.{part}": value for part, value in split.items()}

    def _task(self, y: NDArray) -> str:
        return "regression"


class Classifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """A network for classes, whose labels (n,) are texts or numbers; its parameters are Estimator's.

    `classes_`, and the columns of `predict_proba`, are sorted; data.positive is set aside.
    """

    def _task(self, y: NDArray) -> str:
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y must hold two classes at least, in rows with a weight above zero, got {len(self.classes_)} class"
            )
        return "binary" if len(self.classes_) == 2 else "multiclass"

    def predict(self, X: Any) -> NDArray:
        """The label of each row, (n,)."""
        check_is_fitted(self, "model_")
        labels = self.model_.predict(self._columns(X))
        return self.classes_[[self.model_.classes.index(label) for label in labels]]

    def predict_proba(self, X: Any) -> NDArray:
        """P(class), (n, classes) as in `classes_`."""
        check_is_fitted(self, "model_")
        return self.model_.probabilities(self._columns(X))


class Regressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """A network for numbers, one target (n,) or several (n, targets); its parameters are Estimator's."""

    def predict(self, X: Any) -> NDArray:
        """The target of each row in its own units, (n,), or (n, targets)."""
        check_is_fitted(self, "model_")
        return self.model_.predict(self._columns(X))


def weights_of(sample_weight: Any) -> NDArray:
    """(n,) float64. Raises ValueError."""
    weights = column_or_1d(sample_weight, dtype=np.float64, input_name="sample_weight")
    if not weights.any() or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("sample_weight must hold finite numbers of at least zero, and not zero alone")
    return weights
