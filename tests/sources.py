"""A source in memory, for tests of what becomes of one."""

from __future__ import annotations

import numpy as np

from pipelines.data.columns import Column, Source


def column(values):
    """Words become categories, and None a missing value; numbers and truth values stay."""
    if any(isinstance(value, str) for value in values):
        names = sorted({value for value in values if value is not None})
        places = {None: -1, **{name: place for place, name in enumerate(names)}}
        return Column(np.array([places[value] for value in values], dtype=np.int32), tuple(names))
    return Column(np.array([np.nan if value is None else value for value in values], dtype=np.float64))


def source(columns, target="y", kinds=None, part=None, name="t.csv"):
    """Of name -> values; line 1 is the header, so row 0 stands in line 2."""
    held = {key: values if isinstance(values, Column) else column(values) for key, values in columns.items()}
    looks = {key: "categorical" if one.categories else "numeric" for key, one in held.items()}
    rows = len(next(iter(held.values())).values)
    targets = (target,) if isinstance(target, str) else tuple(target)
    part = None if part is None else np.asarray(part, dtype=np.int8)
    return Source(name, rows, {**looks, **(kinds or {})}, targets, held.__getitem__, lambda row: f"{name}:{row + 2}", part)
