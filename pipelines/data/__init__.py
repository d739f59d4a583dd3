"""From a source to three disjoint parts of plain arrays: read, find the task, check, split, preprocess.

`columns.py` says what a reader hands on, `ways.py` which rows go where, `encoders.py` what is fitted on training rows alone,
`parts.py` what stands on disk.
"""

from pipelines.data.columns import Column, Source
from pipelines.data.parts import PARTS, About, Part
from pipelines.data.prepare import prepare
from pipelines.data.read import read
from pipelines.data.table import DataError

__all__ = ["PARTS", "About", "Column", "DataError", "Part", "Source", "prepare", "read"]
