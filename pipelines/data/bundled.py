"""The small real data sets that come with scikit-learn, so that everything runs without a network."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.data.table import NDArray, Table

# name -> names of its target columns, which scikit-learn leaves out for all but one
BUNDLED = {
    "digits": ("digit",),
    "breast_cancer": ("diagnosis",),
    "wine": ("cultivar",),
    "iris": ("species",),
    "diabetes": ("progression",),
    "linnerud": ("Weight", "Waist", "Pulse"),
}


def read_bundled(name: str) -> Table:
    """One of them, with all its targets."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    features = tuple(str(feature) for feature in bunch.feature_names)
    return Table(name, features, bunch.data.astype(np.float64), BUNDLED[name], _targets(bunch))


def _targets(bunch: Any) -> NDArray:
    """(n, m): names of classes where they have any, else numbers."""
    y: NDArray = bunch.target.reshape(len(bunch.data), -1)
    classes = bunch.get("target_names")
    if y.dtype.kind == "i" and classes is not None and classes.dtype.kind == "U":
        return np.asarray(classes.astype(str)[y])
    return y.astype(np.float64)
