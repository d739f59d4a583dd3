"""Imported by the fork server of pipelines.executors alone: the framework of the one backend that its workers will use.

It is imported once, and every worker process begins as a copy of that. Nothing is computed here, so nothing is copied that a
framework cannot share (threads, a GPU).
"""

import gc
import os
import signal
from contextlib import suppress

VARIABLE = "DELTARULE_PRELOAD"


def _preload(backend: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C meanwhile ends the fork server without a word
    import backends

    with suppress(backends.BackendError):  # the first job will say so
        backends.get(backend)
    gc.freeze()  # no worker looks for garbage among what was imported, which would copy its memory
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # who reads what the driver prints does not wait until the fork server has ended too
        os.dup2(quiet, stream)


if VARIABLE in os.environ:
    _preload(os.environ[VARIABLE])
