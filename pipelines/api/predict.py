"""Predictions for the rows of a file: blocks of rows in, blocks of answers out, however long the file is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.data.columns import DataError, Source
from pipelines.data.preprocess import Categorical
from pipelines.data.rows import blocks, writer
from pipelines.spec import DataSpec
from pipelines.stages.networks import answer, names_of

if TYPE_CHECKING:
    from pipelines.api.results import Model
    from pipelines.stages.networks import Network


@dataclass
class Answered:
    """How many rows were answered, and what was remarkable about them: column -> rows."""

    rows: int = 0
    unused: tuple[str, ...] = ()  # columns that the network does not know
    unseen: Counter[str] = field(default_factory=Counter)  # a category without an input of its own
    gaps: Counter[str] = field(default_factory=Counter)  # no value, where every training row had one

    def told(self) -> Iterator[str]:
        """A sentence each."""
        if self.unused:
            yield f"columns that were no inputs, and were passed over: {', '.join(self.unused)}"
        for name, rows in (+self.unseen).items():
            yield f"column {name!r}: {rows} rows with a category that the training rows did not have, or too rarely for an input"
        for name, rows in self.gaps.items():
            yield f"column {name!r}: {rows} rows without a value, which no training row lacked"


def predict(
    model: Model,
    data: Path,
    out: Path | None,
    shown: Callable[[int], None] = lambda rows: None,
    keep: Sequence[str] = (),
) -> Answered:
    """Write an answer a row to `out`, CSV or Parquet by its ending, or to standard output; `shown` hears of the rows so far.

    Columns of the file to `keep` stand before the answers, as they are there. `out` stands once it is whole.
    Raises DataError with line and column for what cannot be answered.
    """
    if out is not None and out.exists() and data.exists() and out.samefile(data):
        raise DataError(f"--out must be another file than the rows', got {out} for both; choose another name")
    network = model.networks[0]
    block, preprocessing = DataSpec.model_validate(network.run["spec"]["data"]), network.about.preprocessing
    keep = tuple(dict.fromkeys(keep))
    twice = next((name for name in names_of(network.about) if name in keep), None)
    if twice is not None:
        raise DataError(f"--keep must not name a column that the answers have too, got {twice!r}; leave it out")
    answered = Answered()
    with writer(out) as write:
        for source, others, kept in blocks(data, str(data), block, preprocessing, network.about.targets, keep):
            write({**kept, **answer(model.networks, source)})
            answered.unused = tuple(name for name in others if name not in network.about.kinds)
            _count(answered, network, source)
            shown(answered.rows)
        if not answered.rows:
            raise DataError(f"{data}: the file has no rows below the header")
    return answered


def _count(answered: Answered, network: Network, source: Source) -> None:
    """Add what is remarkable about a block."""
    lacked = network.about.missing.get("train", {})
    answered.rows += source.rows
    for encoder in network.about.preprocessing.encoders:
        column = source.fetch(encoder.name)
        gaps = int(column.gaps.sum())
        if gaps and encoder.name not in lacked:
            answered.gaps[encoder.name] += gaps
        if isinstance(encoder, Categorical):
            own = {*encoder.categories}
            without = np.array([category not in own for category in column.categories] + [False])
            answered.unseen.update({encoder.name: int(without[column.values].sum())})
