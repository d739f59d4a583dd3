"""The lightning backend: the shipped conformance suite, and what is Lightning's own."""

from __future__ import annotations

from typing import ClassVar

import pytest

pytest.importorskip("pytorch_lightning")

from backends.conformance import Conformance


class TestLightning(Conformance):
    """A stack equals its solo runs to the bit."""

    backend = "lightning"
    stack_tolerance: ClassVar[dict[str, float]] = {"float32": 0.0, "float64": 0.0}
