"""Scaling of one numeric column, or of the targets: fitted on training rows alone, kept as plain numbers, applied by one line.

scikit-learn fits. The quantile transform takes its quantiles, but interpolates here: scikit-learn's own maps every row
that ties with a column's minimum or maximum to ±5.2 (on digits 58 % of all values), and a constant column to -5.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipelines.data.columns import NDArray

Scaling = Literal["none", "standardize", "minmax", "quantile"]
QUANTILES = 1000  # at most; with fewer training rows, one a row


@dataclass(frozen=True)
class Scale:
    """A fitted transformation of a column. `numbers` are those that its kind needs, so it is JSON as it is."""

    kind: Scaling
    numbers: dict[str, Any]

    def apply(self, x: NDArray) -> NDArray:
        """Raw values (n,) -> scaled, (n,) float64."""
        if self.kind == "standardize":
            return np.asarray((x - self.numbers["mean"]) / self.numbers["scale"])
        if self.kind == "minmax":
            return np.asarray(x * self.numbers["scale"] + self.numbers["shift"])
        if self.kind == "quantile":
            return to_normal(x, np.array(self.numbers["quantiles"]), self.numbers["rows"])
        return x


def fit_scale(kind: Scaling, x: NDArray) -> Scale | None:
    """Fit on training values (n,) float64; None for values too large for it."""
    from sklearn import preprocessing

    X, numbers = x[:, None], dict[str, Any]()
    with np.errstate(over="ignore", invalid="ignore"):
        if kind == "standardize":
            standard = preprocessing.StandardScaler().fit(X)
            numbers = {"mean": float(standard.mean_[0]), "scale": float(standard.scale_[0])}
        elif kind == "minmax":
            minmax = preprocessing.MinMaxScaler().fit(X)
            numbers = {"scale": float(minmax.scale_[0]), "shift": float(minmax.min_[0])}
        elif kind == "quantile":
            quantile = preprocessing.QuantileTransformer(n_quantiles=min(QUANTILES, len(x)), subsample=None).fit(X)
            numbers = {"quantiles": quantile.quantiles_[:, 0].tolist(), "rows": len(x)}
    sound = all(np.isfinite(values).all() for values in numbers.values()) and numbers.get("scale", 1) != 0
    return Scale(kind, numbers) if sound else None


def to_normal(x: NDArray, quantiles: NDArray, rows: int) -> NDArray:
    """Each value's place among the training rows' quantiles (Q,), as a standard normal variable.

    A value that ties with several quantiles takes the middle of their places. The `rows` training rows say nothing
    about places nearer to 0 or 1 than 1/(2·rows), so there it ends. A constant column is 0.
    """
    from scipy.special import ndtri

    if not quantiles[0] < quantiles[-1]:
        return np.zeros(len(x))
    places, edge = np.linspace(0, 1, len(quantiles)), 0.5 / rows
    upper = np.interp(x, quantiles, places)
    lower = -np.interp(-x, -quantiles[::-1], -places[::-1])
    return np.asarray(ndtri(np.clip((lower + upper) / 2, edge, 1 - edge)))


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


def fit_target_scale(y: NDArray, scale: bool) -> TargetScale:
    """Mean and standard deviation of each target over training rows (n, m); 0 and 1 if it is to be left alone."""
    if not scale:
        return TargetScale((0.0,) * y.shape[1], (1.0,) * y.shape[1])
    from sklearn.preprocessing import StandardScaler

    with np.errstate(over="ignore", invalid="ignore"):
        fitted = StandardScaler().fit(y)
    return TargetScale(tuple(fitted.mean_.tolist()), tuple(fitted.scale_.tolist()))
