"""From a source to three disjoint parts of plain arrays: read, find the task, check, split, preprocess.

Kinds of columns other than numbers, missing values, groups, folds and further sources join here as modules of their own:
`table.py` says what a reader hands on, `preprocess.py` what is fitted on training rows alone.
"""

from pipelines.data.parts import About, Part, Prepared, prepare
from pipelines.data.read import read
from pipelines.data.table import DataError, Table

__all__ = ["About", "DataError", "Part", "Prepared", "Table", "prepare", "read"]
