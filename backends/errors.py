"""The error that a person can act on: a backend that is not there, or that cannot do what was asked."""

from __future__ import annotations


class BackendError(ValueError):
    """A backend that is unknown, not installed, or asked for what it cannot do here; the message says what to do."""
