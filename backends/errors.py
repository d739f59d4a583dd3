"""The error that a person can act on, a backend that cannot do what was asked, and what an error came of."""

from __future__ import annotations


class BackendError(ValueError):
    """A backend that is unknown, not installed, or asked for what it cannot do here; the message says what to do."""


def interruption(error: BaseException) -> BaseException | None:
    """The Ctrl-C or SIGTERM that an error came of."""
    came: BaseException | None = error
    while came is not None and isinstance(came, Exception):
        came = came.__context__
    return came
