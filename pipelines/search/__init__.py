"""Studies: Optuna asks, K trials train at once as one stack, and every trial equals its run alone.

The only package that imports optuna.
"""

from pipelines.search.book import StudyError
from pipelines.search.study import search

__all__ = ["StudyError", "search"]
