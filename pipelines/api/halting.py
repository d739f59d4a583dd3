"""SIGTERM while a run trains: it ends where a checkpoint can be written, so that it can go on from that very step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

GRACE_SECONDS = 5.0  # for the chunk of steps that is being trained; who sends SIGTERM often kills after ten


@contextmanager
def halting() -> Iterator[Callable[[], None]]:
    """Holds SIGTERM back until what it yields is called, which then does what the signal would have done.

    At once all the same for a second signal, and when that takes too long. Where a signal would simply end the process, or
    outside of the main thread, nothing is changed.
    """
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    came = False

    def end(*_: Any) -> None:
        nonlocal came
        came = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        before(signal.SIGTERM, None)

    def hold(*_: Any) -> None:
        nonlocal came
        if came:
            end()
        came = True
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    def halt() -> None:
        if came:
            end()

    alarm = signal.signal(signal.SIGALRM, end)
    signal.signal(signal.SIGTERM, hold)
    try:
        yield halt
        halt()
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
