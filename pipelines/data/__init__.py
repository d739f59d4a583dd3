"""From a source to three disjoint parts of plain arrays: read, find the task, check, split, preprocess."""

from pipelines.data.columns import PARTS, Column, DataError, Source
from pipelines.data.parts import About, Part, prepare
from pipelines.data.read import read

__all__ = ["PARTS", "About", "Column", "DataError", "Part", "Source", "prepare", "read"]
