"""Studies: Optuna asks, K trials train at once as one stack, and every trial equals its run alone.

The only package that imports optuna.
"""

from pipelines.search.study import search
from pipelines.search.trials import StudyError

__all__ = ["StudyError", "search"]
