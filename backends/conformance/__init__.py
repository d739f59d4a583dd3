"""The contract of a backend as executable checks. A backend proves itself with a test file of three lines:

    from backends.conformance import Conformance

    class TestMine(Conformance):
        backend = "mine"

Cases are trained as stacks, and cover every two settings of any two factors (cases.py). The tolerances are those of
docs/theory.md, "When two backends agree" (compare.py). Needs pytest.

What every backend shares, it cannot see. tests/test_conformance_teeth.py says which fault is seen by which check.
"""

from __future__ import annotations

from typing import ClassVar

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in ("compare", "runs", "steps")))

from backends import get  # noqa: E402 (asserts that fail show their values only where pytest knew before the import)
from backends.base import Backend  # noqa: E402
from backends.conformance.cases import (  # noqa: E402
    ACTIVATIONS,
    BATCH,
    INPUTS,
    OPTIMIZERS,
    OUTPUTS,
    ROWS,
    TASKS,
    describe,
    make_data,
    make_trial,
)
from backends.conformance.compare import assert_close, assert_same_result  # noqa: E402
from backends.conformance.runs import RunChecks  # noqa: E402
from backends.conformance.steps import StepChecks  # noqa: E402

__all__ = [
    "ACTIVATIONS", "BATCH", "INPUTS", "OPTIMIZERS", "OUTPUTS", "ROWS", "TASKS",
    "Conformance", "assert_close", "assert_same_result", "describe", "make_data", "make_trial",
]  # fmt: skip


class Conformance(StepChecks, RunChecks):
    """Every check of the contract. A subclass names its backend."""

    backend: ClassVar[str]
    # A stack whose arithmetic differs from its solo runs' (other kernels for other shapes) says by how much, relative.
    stack_tolerance: ClassVar[dict[str, float]] = {"float32": 1e-5, "float64": 1e-12}

    @pytest.fixture
    def subject(self) -> Backend:
        """The backend under test."""
        return get(self.backend)
