"""From raw columns to the inputs of a network: one encoder a column, fitted on training rows alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pipelines.data.columns import Column, DataError, NDArray, Source
from pipelines.spec import DataSpec
from pipelines.spec.blocks import Dates, Kind, Numbers, Part

Scaling = Literal["none", "standardize", "minmax", "quantile"]
QUANTILES = 1000  # at most; with fewer training rows, one a row
LIMIT = float(np.finfo(np.float32).max)


class CellError(ValueError):
    """A value that cannot be used, at a place, from 0, among the rows given."""

    def __init__(self, place: int, message: str) -> None:
        super().__init__(message)
        self.place = place


@contextmanager
def named_rows(source: Source, rows: NDArray) -> Iterator[None]:
    """Cells that cannot be used are refused with their line."""
    try:
        yield
    except CellError as error:
        raise DataError(f"{source.line(int(rows[error.place]))}: {error}") from None


# -- scaling --


def scaled(kind: Scaling, numbers: dict[str, Any], x: NDArray) -> NDArray:
    """Raw values (n,) -> scaled, (n,) float64. `numbers` are what `fit_scale` gave."""
    if kind == "standardize":
        return np.asarray((x - numbers["mean"]) / numbers["scale"])
    if kind == "minmax":
        return np.asarray(x * numbers["scale"] + numbers["shift"])
    if kind == "quantile":
        return to_normal(x, np.array(numbers["quantiles"]), numbers["rows"])
    return x


def fit_scale(kind: Scaling, x: NDArray) -> dict[str, Any] | None:
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
    return numbers if sound else None


def to_normal(x: NDArray, quantiles: NDArray, rows: int) -> NDArray:
    """Each value's place among training quantiles (Q,), as a standard normal variable.

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
    """Mean and standard deviation of each target over training rows (n, m); else 0 and 1."""
    if not scale:
        return TargetScale((0.0,) * y.shape[1], (1.0,) * y.shape[1])
    from sklearn.preprocessing import StandardScaler

    with np.errstate(over="ignore", invalid="ignore"):
        fitted = StandardScaler().fit(y)
    return TargetScale(tuple(fitted.mean_.tolist()), tuple(fitted.scale_.tolist()))


# -- encoders --


@dataclass(frozen=True)
class Numeric:
    """A column of numbers or dates. `fill` stands for a missing value; None: there must be none."""

    name: str
    kind: Literal["numeric", "datetime"]
    fill: float | None
    indicator: bool
    scaling: Scaling
    numbers: dict[str, Any]  # of the scale

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it becomes."""
        return (self.name, f"{self.name} missing") if self.indicator else (self.name,)

    def encode(self, column: Column) -> Iterator[NDArray]:
        """Each input of the rows, (n,) float32. Raises CellError."""
        gaps = column.gaps
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
            stored = scaled(self.scaling, self.numbers, _filled(self.name, column.values, gaps, self.fill)).astype(np.float32)
        # One such value would flatten all others, but where only the order counts.
        if self.scaling != "quantile":
            _refuse(self.name, np.abs(column.values) > LIMIT, column.values, "")
        _refuse(self.name, ~np.isfinite(stored), column.values, " after scaling")
        yield stored
        if self.indicator:
            yield gaps.astype(np.float32)


@dataclass(frozen=True)
class Moments:
    """A column of dates of which other parts than the day are inputs: one encoder each."""

    name: str
    kind: Literal["datetime"]
    parts: tuple[Part, ...]
    each: tuple[Numeric, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it becomes."""
        return tuple(name for encoder in self.each for name in encoder.inputs)

    def encode(self, column: Column) -> Iterator[NDArray]:
        """Each input of the rows, (n,) float32. Raises CellError."""
        for part, encoder in zip(self.parts, self.each, strict=True):
            yield from encoder.encode(Column(part_of(column.values, part)))


@dataclass(frozen=True)
class Flag:
    """A boolean column, 1 for true. `missing`: one more input says where there is no value; None: there must be one."""

    name: str
    kind: Literal["boolean"]
    missing: bool | None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it becomes."""
        return (self.name, f"{self.name} missing") if self.missing else (self.name,)

    def encode(self, column: Column) -> Iterator[NDArray]:
        """Each input of the rows, (n,) float32. Raises CellError."""
        gaps = column.gaps
        if self.missing is None:
            _refuse_gaps(self.name, gaps, "categorical: category")
        yield np.where(gaps, 0, column.values).astype(np.float32)
        if self.missing:
            yield gaps.astype(np.float32)


@dataclass(frozen=True)
class Categorical:
    """Those of `categories` have an input each; `infrequent` and `missing` ones may."""

    name: str
    kind: Literal["categorical"]
    categories: tuple[str, ...]
    infrequent: bool
    missing: bool | None  # None: there must be a value in every row

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it becomes."""
        own = [f"{self.name}={category}" for category in self.categories]
        others = [f"{self.name} infrequent"] * self.infrequent + [f"{self.name} missing"] * bool(self.missing)
        return (*own, *others)

    def encode(self, column: Column) -> Iterator[NDArray]:
        """Each input of the rows, (n,) float32. Raises CellError."""
        if self.missing is None:
            _refuse_gaps(self.name, column.gaps, "categorical: category")
        place = self._places(column.categories)[column.values]
        for number in range(len(self.inputs)):
            yield (place == number).astype(np.float32)

    def _places(self, categories: tuple[str, ...]) -> NDArray:
        """Input of each of these categories, and, last, of a missing value; -1 for none."""
        own = {category: place for place, category in enumerate(self.categories)}
        rest = len(own) if self.infrequent else -1
        gap = len(self.inputs) - 1 if self.missing else rest
        return np.array([*(own.get(category, rest) for category in categories), gap])


Encoder = Numeric | Moments | Flag | Categorical


def part_of(days: NDArray, part: str) -> NDArray:
    """A part of each date (n,) float64, NaN where there is none. Week days count from 0, Monday."""
    if part == "day":
        return days
    gaps = np.isnan(days)
    whole = np.floor(np.where(gaps, 0, days))
    if part == "hour":
        hours = np.floor((np.where(gaps, 0, days) - whole) * 24 + 1e-6)
        return np.where(gaps, np.nan, hours)
    dates = whole.astype("datetime64[D]")
    months = dates.astype("datetime64[M]").astype(np.int64)
    parts = {"year": months // 12 + 1970, "month": months % 12 + 1, "weekday": (whole + 3) % 7}
    return np.where(gaps, np.nan, parts[part].astype(np.float64))


def _filled(name: str, values: NDArray, gaps: NDArray, fill: float | None) -> NDArray:
    if fill is None:
        _refuse_gaps(name, gaps, "numeric: median")
        return values
    return np.where(gaps, fill, values) if gaps.any() else values


def _refuse_gaps(name: str, gaps: NDArray, way_out: str) -> None:
    if gaps.any():
        must = f"column {name!r} must have a value in every row, found none here; set data.missing.{way_out}"
        raise CellError(int(np.argmax(gaps)), must)


def _refuse(name: str, beyond: NDArray, values: NDArray, when: str) -> None:
    if beyond.any():
        place = int(np.argmax(beyond))
        raise CellError(place, f"column {name!r} must lie within ±{LIMIT:.1e}{when}, found {values[place]:g}")


# -- fitting --


@dataclass(frozen=True)
class Fitted:
    """An encoder, and what the training rows did not have."""

    encoder: Encoder
    unseen_gaps: bool = False  # a missing value is one that no training row had
    unseen: NDArray | None = None  # of each category, whether it is one
    rare: tuple[int, int] | None = None  # categories that share an input, and their training rows

    def count_unseen(self, column: Column) -> int:
        """Categories and truth values that no training row had."""
        if self.unseen is None:
            return int(column.gaps.sum()) if self.unseen_gaps else 0
        return int(np.append(self.unseen, self.unseen_gaps)[column.values].sum())


def fit(name: str, kind: Kind, column: Column, spec: DataSpec, parts: Sequence[Part] = ("day",)) -> Fitted:
    """Fit on the training rows of a column; `parts` of dates. Raises CellError."""
    if kind == "datetime" and tuple(parts) != ("day",):
        return Fitted(_fit_parts(name, parts, column.values, spec))
    if kind in ("numeric", "datetime"):
        return Fitted(_fit_numeric(name, kind, column.values, spec))
    gaps, refuse = bool(column.gaps.any()), spec.missing.categorical == "refuse"
    missing = None if refuse else gaps
    if kind == "boolean":
        return Fitted(Flag(name, "boolean", missing), not gaps)
    counts = np.bincount(column.values[~column.gaps], minlength=len(column.categories))
    often = np.argsort(-counts, kind="stable")[: spec.categories.most]  # of equally frequent ones the first
    kept = np.sort(often[counts[often] >= spec.categories.least_rows])
    own = tuple(column.categories[place] for place in kept)
    others = int(counts.sum() - counts[kept].sum())
    rare = (int(np.count_nonzero(counts)) - len(kept), others) if others else None
    return Fitted(Categorical(name, "categorical", own, bool(others), missing), not gaps, counts == 0, rare)


def _fit_parts(name: str, parts: Sequence[Part], days: NDArray, spec: DataSpec) -> Moments:
    each: list[Numeric] = []
    for part in parts:
        own = name if part == "day" else f"{name} {part}"
        fitted = _fit_numeric(own, "datetime", part_of(days, part), spec)
        # One input says that there is no date.
        each.append(replace(fitted, indicator=False) if each else fitted)
    return Moments(name, "datetime", tuple(parts), tuple(each))


def _fit_numeric(name: str, kind: Any, values: NDArray, spec: DataSpec) -> Numeric:
    gaps, wanted = np.isnan(values), spec.missing.numeric
    if gaps.all() and wanted == "median":
        must = f"column {name!r} must have a value in some training row, found none; set data.columns: {{{name}: ignore}}"
        raise CellError(0, must)
    with np.errstate(over="ignore"):
        fill = None if wanted == "refuse" else float(np.median(values[~gaps])) if wanted == "median" else float(wanted)
    filled = _filled(name, values, gaps, fill)
    numbers = fit_scale(spec.scaling, filled)
    if numbers is None or not np.isfinite(fill or 0):
        place = int(np.argmax(np.abs(filled)))
        raise CellError(place, f"column {name!r} must be small enough to be scaled, found {filled[place]:g}")
    return Numeric(name, kind, fill, bool(gaps.any()) and spec.missing.indicator, spec.scaling, numbers)


# -- all columns --


@dataclass(frozen=True)
class Preprocessing:
    """The encoders of all columns that a network is given, in the order of its inputs."""

    encoders: Annotated[tuple[Encoder, ...], Field(alias="columns")]  # as about.json calls them
    orders: Mapping[str, str] = field(default_factory=dict)  # column of dates -> a key of dates.PLAIN
    numbers: Mapping[str, Numbers] = field(default_factory=dict)  # column -> how its numbers are written, where not as 1234.5
    dates: Mapping[str, Dates] = field(default_factory=dict)  # column -> how its dates are written, and their parts

    @property
    def columns(self) -> dict[str, Kind]:
        """The raw columns that it needs, and what they hold."""
        return {encoder.name: encoder.kind for encoder in self.encoders}

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of a network's inputs: "age", "age missing", "colour=red", "colour infrequent"."""
        return tuple(name for encoder in self.encoders for name in encoder.inputs)

    def apply(self, source: Source, rows: NDArray | None = None) -> NDArray:
        """Raw rows, all or some, with the columns and kinds of the training rows -> what the network sees, (n, I) float32.

        Raises DataError for values that cannot be used.
        """
        rows = np.arange(source.rows) if rows is None else rows
        X = np.empty((len(rows), len(self.inputs)), dtype=np.float32)
        columns = iter(X.T)
        with named_rows(source, rows):
            for encoder in self.encoders:
                for values in encoder.encode(source.fetch(encoder.name).of(rows)):
                    next(columns)[:] = values
        return X
