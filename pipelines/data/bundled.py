"""The small real data sets that come with scikit-learn, so that everything runs without a network."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.data.columns import Column, Source
from pipelines.data.table import NDArray
from pipelines.spec.blocks import Kind

# name -> names of its target columns, which scikit-learn leaves out for all but one
BUNDLED = {
    "digits": ("digit",),
    "breast_cancer": ("diagnosis",),
    "wine": ("cultivar",),
    "iris": ("species",),
    "diabetes": ("progression",),
    "linnerud": ("Weight", "Waist", "Pulse"),
}


def read_bundled(name: str) -> Source:
    """One of them, with all its targets."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    X = bunch.data.astype(np.float64)
    columns = {str(feature): Column(X[:, place]) for place, feature in enumerate(bunch.feature_names)}
    targets = _targets(bunch, BUNDLED[name])
    kinds: dict[str, Kind] = dict.fromkeys(columns, "numeric")
    kinds |= {target: "categorical" if column.categories else "numeric" for target, column in targets.items()}
    whole = {**columns, **targets}
    return Source(name, len(X), kinds, BUNDLED[name], whole.__getitem__, lambda row: f"{name}, row {row + 1}")


def _targets(bunch: Any, names: tuple[str, ...]) -> dict[str, Column]:
    """Names of classes where they have any, else numbers."""
    y: NDArray = bunch.target.reshape(len(bunch.data), -1)
    classes = bunch.get("target_names")
    if y.dtype.kind == "i" and classes is not None and classes.dtype.kind == "U":
        known, place = np.unique(classes.astype(str), return_inverse=True)
        return {names[0]: Column(place[y[:, 0]].astype(np.int32), tuple(map(str, known)))}
    return {name: Column(y[:, place].astype(np.float64)) for place, name in enumerate(names)}
