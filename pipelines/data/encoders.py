"""How one column becomes inputs of a network: fitted on training rows alone, then applied to any rows, one input at a time.

Numbers and dates: what is missing is filled in, then scaled; where training rows had gaps, one more input says where. A boolean
is one input, a categorical column one a category: 0 or 1, never scaled. Categories that are rare in the training rows share the
input "NAME infrequent". A value that no training row had goes there too; without such an input, all of the column's are 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipelines.data.columns import Column, NDArray
from pipelines.data.scaling import Scale, fit_scale
from pipelines.spec import DataSpec
from pipelines.spec.blocks import Kind

LIMIT = float(np.finfo(np.float32).max)


class CellError(ValueError):
    """A value that cannot be used, at a place (counted from 0) among the rows that were given."""

    def __init__(self, place: int, message: str) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True)
class Numeric:
    """A column of numbers or dates. `fill` stands for a missing value; None: there must be none."""

    name: str
    kind: Literal["numeric", "datetime"]
    fill: float | None
    indicator: bool
    scale: Scale

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it becomes."""
        return (self.name, f"{self.name} missing") if self.indicator else (self.name,)

    def encode(self, column: Column) -> Iterator[NDArray]:
        """Each input of the rows, (n,) float32. Raises CellError."""
        gaps = column.gaps
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
            scaled = self.scale.apply(_filled(self.name, column.values, gaps, self.fill))
            stored = scaled.astype(np.float32)
        # Among the training rows one such value would flatten all the others, but where only their order counts.
        large = np.abs(column.values) > LIMIT
        if large.any() and self.scale.kind != "quantile":
            place = int(np.argmax(large))
            raise CellError(place, f"column {self.name!r} must lie within ±{LIMIT:.1e}, found {column.values[place]:g}")
        sound = np.isfinite(stored)
        if not sound.all():
            place = int(np.argmin(sound))
            raise CellError(
                place, f"column {self.name!r} must lie within ±{LIMIT:.1e} after scaling, found {column.values[place]:g}"
            )
        yield stored
        if self.indicator:
            yield gaps.astype(np.float32)

    def as_json(self) -> dict[str, Any]:
        """Plain values; `encoder_from` gives the same to the bit."""
        fixed = {"name": self.name, "kind": self.kind, "fill": self.fill, "indicator": self.indicator}
        return {**fixed, "scaling": self.scale.kind, "numbers": self.scale.numbers}


@dataclass(frozen=True)
class Flag:
    """A boolean column: 1 where it is true. `missing`: one more input, 1 where there is no value; None: there must be one."""

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
            _refuse_gaps(self.name, gaps, "categorical")
        yield np.where(gaps, 0, column.values).astype(np.float32)
        if self.missing:
            yield gaps.astype(np.float32)

    def as_json(self) -> dict[str, Any]:
        """Plain values; `encoder_from` gives the same to the bit."""
        return {"name": self.name, "kind": self.kind, "missing": self.missing}


@dataclass(frozen=True)
class Categorical:
    """A column of categories: those of `categories` have an input each, `infrequent` ones and those that are `missing` may."""

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
            _refuse_gaps(self.name, column.gaps, "categorical")
        place = self._places(column.categories)[column.values]
        for number in range(len(self.inputs)):
            yield (place == number).astype(np.float32)

    def _places(self, categories: tuple[str, ...]) -> NDArray:
        """Input of each of these categories, and, last, where -1 points, of a missing value; -1 for none."""
        own = {category: place for place, category in enumerate(self.categories)}
        rest = len(own) if self.infrequent else -1
        gap = len(self.inputs) - 1 if self.missing else rest
        return np.array([*(own.get(category, rest) for category in categories), gap])

    def as_json(self) -> dict[str, Any]:
        """Plain values; `encoder_from` gives the same to the bit."""
        fixed = {"name": self.name, "kind": self.kind, "categories": list(self.categories)}
        return {**fixed, "infrequent": self.infrequent, "missing": self.missing}


Encoder = Numeric | Flag | Categorical


@dataclass(frozen=True)
class Fitted:
    """An encoder, and what the training rows did not have."""

    encoder: Encoder
    unseen_gaps: bool  # a missing value is one that no training row had
    unseen: NDArray | None = None  # of each category, whether it is one
    rare: tuple[int, int] | None = None  # categories that share an input, and the training rows that have one of them

    def count_unseen(self, column: Column) -> int:
        """Values that no training row had: of categorical and boolean columns, whose inputs cannot tell them."""
        if isinstance(self.encoder, Numeric):
            return 0
        if self.unseen is None:
            return int(column.gaps.sum()) if self.unseen_gaps else 0
        return int(np.append(self.unseen, self.unseen_gaps)[column.values].sum())


def fit(name: str, kind: Kind, column: Column, spec: DataSpec) -> Fitted:
    """Fit on the training rows of a column. Raises CellError, with a place among them."""
    if kind in ("numeric", "datetime"):
        return Fitted(_fit_numeric(name, kind, column.values, spec), False)
    refuse = spec.missing.categorical == "refuse"
    if kind == "boolean":
        gaps = bool(column.gaps.any())
        return Fitted(Flag(name, "boolean", None if refuse else gaps), not gaps)
    counts = np.bincount(column.values + 1, minlength=len(column.categories) + 1)
    gaps, counts = bool(counts[0]), counts[1:]
    kept = _most_frequent(counts, spec.categories.most, spec.categories.least_rows)
    own = tuple(column.categories[place] for place in kept)
    others = int(counts.sum() - counts[kept].sum())
    rare = (int(np.count_nonzero(counts)) - len(kept), others) if others else None
    return Fitted(Categorical(name, "categorical", own, bool(others), None if refuse else gaps), not gaps, counts == 0, rare)


def _most_frequent(counts: NDArray, most: int, least: int) -> NDArray:
    """Places of the categories that have an input of their own, sorted. Of equally frequent ones the first are taken."""
    by_count = np.argsort(-counts, kind="stable")[:most]
    return np.sort(by_count[counts[by_count] >= least])


def _fit_numeric(name: str, kind: Any, values: NDArray, spec: DataSpec) -> Numeric:
    gaps, wanted = np.isnan(values), spec.missing.numeric
    if gaps.all() and wanted == "median":
        raise CellError(
            0, f"column {name!r} must have a value in some training row, found none; set data.columns: {{{name}: ignore}}"
        )
    with np.errstate(over="ignore"):
        fill = None if wanted == "refuse" else float(np.median(values[~gaps])) if wanted == "median" else float(wanted)
    filled = _filled(name, values, gaps, fill)
    scale = fit_scale(spec.scaling, filled)
    if scale is None or not np.isfinite(fill or 0):
        place = int(np.argmax(np.abs(filled)))
        raise CellError(place, f"column {name!r} must be small enough to be scaled, found {filled[place]:g}")
    return Numeric(name, kind, fill, bool(gaps.any()) and spec.missing.indicator, scale)


def _filled(name: str, values: NDArray, gaps: NDArray, fill: float | None) -> NDArray:
    if fill is None:
        _refuse_gaps(name, gaps, "numeric")
        return values
    return np.where(gaps, fill, values) if gaps.any() else values


def _refuse_gaps(name: str, gaps: NDArray, key: str) -> None:
    if gaps.any():
        way_out = {"numeric": "median", "categorical": "category"}[key]
        raise CellError(
            int(np.argmax(gaps)),
            f"column {name!r} must have a value in every row, found none here; set data.missing.{key}: {way_out}",
        )


def encoder_from(kept: Mapping[str, Any]) -> Encoder:
    """What `as_json` gave."""
    fields = dict(kept)
    if kept["kind"] == "boolean":
        return Flag(**fields)
    if kept["kind"] == "categorical":
        return Categorical(**{**fields, "categories": tuple(kept["categories"])})
    scale = Scale(fields.pop("scaling"), fields.pop("numbers"))
    return Numeric(**fields, scale=scale)
