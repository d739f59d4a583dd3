"""From the raw columns of a source to the inputs of a network: one fitted encoder a column, kept as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.data.columns import DataError, NDArray, Source
from pipelines.data.encoders import CellError, Encoder, encoder_from
from pipelines.spec.blocks import Kind
from pipelines.spec.describe import nearest


@dataclass(frozen=True)
class Preprocessing:
    """The encoders of all columns that a network is given, in the order of its inputs."""

    encoders: tuple[Encoder, ...]
    orders: Mapping[str, str] = field(default_factory=dict)  # column of dates -> what its cells begin with, as in dates.py

    @property
    def columns(self) -> dict[str, Kind]:
        """The raw columns that it needs, and what they hold."""
        return {encoder.name: encoder.kind for encoder in self.encoders}

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of a network's inputs: "age", "age missing", "colour=red", "colour infrequent"."""
        return tuple(name for encoder in self.encoders for name in encoder.inputs)

    def apply(self, source: Source) -> NDArray:
        """Raw rows -> what the network sees, (n, I) float32; columns that it does not need may be there.

        Raises DataError for a column that is missing or of another kind, and for values that cannot be used.
        """
        self.check(source)
        X = np.empty((source.rows, len(self.inputs)), dtype=np.float32)
        place = 0
        for encoder in self.encoders:
            try:
                for values in encoder.encode(source.fetch(encoder.name)):
                    X[:, place] = values
                    place += 1
            except CellError as error:
                raise DataError(f"{source.line(error.place)}: {error}") from None
        return X

    def check(self, source: Source) -> None:
        """Raises DataError unless the source has the columns that are needed."""
        wanted, given = self.columns, source.kinds
        missing = [name for name in wanted if name not in given]
        if missing:
            raise DataError(
                f"{source.name}: column {missing[0]!r} must be there, as in the training rows, found none of that name; "
                f"{nearest(missing[0], list(given))}"
            )
        for name, kind in wanted.items():
            if given[name] != kind:
                raise DataError(f"{source.name}: column {name!r} must be {kind}, as in the training rows, found {given[name]}")

    def as_json(self) -> dict[str, Any]:
        """Plain lists and numbers; `from_json` gives the same to the bit."""
        orders = {"orders": dict(self.orders)} if self.orders else {}
        return {"columns": [encoder.as_json() for encoder in self.encoders], **orders}

    @staticmethod
    def from_json(kept: dict[str, Any]) -> Preprocessing:
        """What `as_json` gave."""
        return Preprocessing(tuple(encoder_from(one) for one in kept["columns"]), kept.get("orders", {}))
