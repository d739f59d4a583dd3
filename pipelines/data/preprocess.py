"""Numeric scaling, fitted on training rows alone, kept as plain JSON, and applied by one line of NumPy.

scikit-learn fits. The quantile transform takes its quantiles, but interpolates here: scikit-learn's own maps every row
that ties with a column's minimum or maximum to ±5.2 (on digits 58 % of all values), and a constant column to -5.2.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from pipelines.data.table import DataError, NDArray

Scaling = Literal["none", "standardize", "minmax", "quantile"]
QUANTILES = 1000  # at most; with fewer training rows, one a row


@dataclass(frozen=True)
class Preprocessing:
    """A fitted transformation of columns. `numbers` are those that its kind needs, in lists, so it is JSON as it is."""

    scaling: Scaling
    numbers: dict[str, list[Any]]

    def apply(self, X: NDArray) -> NDArray:
        """Raw rows (n, I) -> what the network sees, (n, I) float64."""
        X = np.asarray(X, dtype=np.float64)
        if self.scaling == "standardize":
            return (X - self._row("mean")) / self._row("scale")
        if self.scaling == "minmax":
            return X * self._row("scale") + self._row("shift")
        if self.scaling == "quantile":
            return to_normal(X, np.array(self.numbers["quantiles"]), self.numbers["rows"][0])
        return X

    def as_json(self) -> dict[str, Any]:
        """Plain lists and numbers; `from_json` gives the same transformation to the bit."""
        return asdict(self)

    @staticmethod
    def from_json(kept: dict[str, Any]) -> Preprocessing:
        """What `as_json` gave."""
        return Preprocessing(kept["scaling"], kept["numbers"])

    def _row(self, name: str) -> NDArray:
        return np.array(self.numbers[name])


@dataclass(frozen=True)
class TargetScale:
    """y = mean + scale · (what the network is trained on), one number a target."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    def apply(self, y: NDArray) -> NDArray:
        """Own units (n, m) -> the training's scale."""
        return np.asarray((y - np.array(self.mean)) / np.array(self.scale))

    def undo(self, z: NDArray) -> NDArray:
        """The training's scale (n, m) -> own units."""
        return np.asarray(z * np.array(self.scale) + np.array(self.mean))


def fit_preprocessing(scaling: Scaling, X: NDArray, features: tuple[str, ...]) -> Preprocessing:
    """Fit on training rows (n, I). Raises DataError for columns too large to be scaled."""
    if scaling == "none":
        return Preprocessing("none", {})
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = _FITS[scaling](X)
    for name, values in numbers.items():
        sound = np.isfinite(values) & ((name != "scale") | (values != 0))
        bad = np.flatnonzero(~np.atleast_2d(sound).all(axis=0))
        if len(bad):
            largest = np.abs(X[:, bad[0]]).max()
            raise DataError(f"column {features[bad[0]]!r} must be small enough to be scaled, found values up to {largest}")
    return Preprocessing(scaling, {name: np.asarray(values).tolist() for name, values in numbers.items()})


def fit_target_scale(y: NDArray, scale: bool) -> TargetScale:
    """Mean and standard deviation of each target over training rows (n, m); 0 and 1 if it is to be left alone."""
    if not scale:
        return TargetScale((0.0,) * y.shape[1], (1.0,) * y.shape[1])
    numbers = _standardize(y)
    return TargetScale(tuple(numbers["mean"].tolist()), tuple(numbers["scale"].tolist()))


def to_normal(X: NDArray, quantiles: NDArray, rows: int) -> NDArray:
    """Each column's place among the training rows' quantiles (Q, I), as a standard normal variable.

    A value that ties with several quantiles takes the middle of their places. The `rows` training rows say nothing
    about places nearer to 0 or 1 than 1/(2·rows), so there it ends.
    """
    from scipy.special import ndtri

    places, edge = np.linspace(0, 1, len(quantiles)), 0.5 / rows
    normal = np.zeros_like(X)
    for column in np.flatnonzero(quantiles[0] < quantiles[-1]):  # a constant column stays 0
        knots, x = quantiles[:, column], X[:, column]
        upper = np.interp(x, knots, places)
        lower = -np.interp(-x, -knots[::-1], -places[::-1])
        normal[:, column] = ndtri(np.clip((lower + upper) / 2, edge, 1 - edge))
    return normal


def _standardize(X: NDArray) -> dict[str, NDArray]:
    from sklearn.preprocessing import StandardScaler

    fitted = StandardScaler().fit(X)
    return {"mean": fitted.mean_, "scale": fitted.scale_}


def _minmax(X: NDArray) -> dict[str, NDArray]:
    from sklearn.preprocessing import MinMaxScaler

    fitted = MinMaxScaler().fit(X)
    return {"scale": fitted.scale_, "shift": fitted.min_}


def _quantile(X: NDArray) -> dict[str, NDArray]:
    from sklearn.preprocessing import QuantileTransformer

    fitted = QuantileTransformer(n_quantiles=min(QUANTILES, len(X)), subsample=None).fit(X)
    return {"quantiles": fitted.quantiles_, "rows": np.array([len(X)])}


_FITS = {"standardize": _standardize, "minmax": _minmax, "quantile": _quantile}
