"""What a reader hands on: rows of numbers, and one or more target columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

NDArray = np.ndarray[Any, np.dtype[Any]]


class DataError(ValueError):
    """Data that cannot be used as the spec says. The message names file, row and column where there is one."""

    exit_code = 2


@dataclass(frozen=True)
class Table:
    """Rows as they were read. `features` name the columns of X (n, I) float64, `names` those of `targets`.

    `targets` is (n, m) float64, or, where the one target column holds words, (n, 1) of str.
    """

    source: str
    features: tuple[str, ...]
    X: NDArray
    names: tuple[str, ...]
    targets: NDArray

    def __post_init__(self) -> None:
        if not self.features:
            raise DataError(f"{self.source}: there must be a column beside the target, found none")
        if not len(self.X):
            raise DataError(f"{self.source}: there must be rows, found none below the header")

    @property
    def worded(self) -> bool:
        """Whether the target holds words, not numbers."""
        return self.targets.dtype.kind in "UO"
