"""What a reproduction cannot begin with."""

from __future__ import annotations


class ReproduceError(RuntimeError):
    """The run, its commit or its data are not there, or cannot be run again."""
