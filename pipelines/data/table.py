"""What every module of this folder shares: arrays, and the one error."""

from __future__ import annotations

from typing import Any

import numpy as np

NDArray = np.ndarray[Any, np.dtype[Any]]


class DataError(ValueError):
    """Data that cannot be used as the spec says. The message names file, row and column where there is one."""

    exit_code = 2
