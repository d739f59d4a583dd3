"""Imported by the fork server of pipelines.executors alone: the framework of the one backend that its workers will use.

It is imported once, and every worker process begins as a copy of that. Nothing is computed here, so nothing is copied that a
framework cannot share (threads, a GPU).
"""

import os
from contextlib import suppress

import backends

VARIABLE = "DELTARULE_PRELOAD"

if VARIABLE in os.environ:
    with suppress(backends.BackendError):  # the first job will say so
        backends.get(os.environ[VARIABLE])
