"""The old name of backends/losses.py, kept for plug-ins until the next version."""

from __future__ import annotations

import warnings

from backends.losses import *  # noqa: F403

warnings.warn("backends.tasks is now backends.losses; the old name goes in the next version", DeprecationWarning, stacklevel=2)
