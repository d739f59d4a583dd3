"""A worker process: reads jobs from its standard input, writes outcomes to its standard output, ends with its driver.

Run as a file, and standard library alone: nothing that reads the thread limits may be imported before the first job.
A message is its length (8 bytes) and a pickle: (function, args, kwargs) one way, (True, result) or (False, error) the other.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import queue
import signal
import struct
import sys
import threading
import traceback
from typing import IO

LENGTH = struct.Struct(">Q")


def send(pipe: IO[bytes], message: bytes) -> None:
    """Write one message. Raises OSError where nobody reads any more."""
    pipe.write(LENGTH.pack(len(message)))
    pipe.write(message)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes:
    """Read one message. Raises EOFError at the end, also in the middle of a message."""
    head = pipe.read(LENGTH.size)
    body = pipe.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""
    if len(head) < LENGTH.size or len(body) < LENGTH.unpack(head)[0]:
        raise EOFError
    return body


def main() -> None:
    """Jobs one after another, until the driver closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to answer
    _die_with_the_driver()
    faulthandler.enable()
    jobs, outcomes = _pipes()
    sys.path[:] = pickle.loads(receive(jobs))
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs, waiting), daemon=True).start()
    while True:
        send(outcomes, carried_out(waiting.get()))


def _pipes() -> tuple[IO[bytes], IO[bytes]]:
    """The two pipes, moved away from where a job's print and input would find them: to standard error, and nowhere."""
    jobs, outcomes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return jobs, outcomes


def _listen(jobs: IO[bytes], waiting: queue.SimpleQueue[bytes]) -> None:
    """Read on while a job runs, so as to see the driver go: a job may take hours."""
    while True:
        try:
            waiting.put(receive(jobs))
        except EOFError:
            os._exit(0)  # the main thread may be deep in a framework


def _die_with_the_driver() -> None:
    """Linux: the kernel ends this process with the thread that started it, even where a job never lets _listen run."""
    if sys.platform == "linux":
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def carried_out(job: bytes) -> bytes:
    """The outcome of a job, ready to be sent."""
    try:
        fn, args, kwargs = pickle.loads(job)
        return pickle.dumps((True, fn(*args, **kwargs)), pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        return pickle.dumps((False, portable(error)), pickle.HIGHEST_PROTOCOL)


def portable(error: BaseException) -> BaseException:
    """The error with its traceback as a note; a RuntimeError that tells it, where it cannot travel (or is SystemExit)."""
    trace = "".join(traceback.format_exception(error)).rstrip()
    try:
        error.add_note(f"In a worker process:\n{trace}")
        pickle.loads(pickle.dumps(error))
    except Exception:
        travels = False
    else:
        travels = isinstance(error, Exception)
    return error if travels else RuntimeError(f"{type(error).__name__} in a worker process:\n{trace}")


if __name__ == "__main__":
    main()
