"""The other ranks' processes: started, told what to do, watched, and ended, by rank 0.

Each is `python -m backends.lightning.worker`. It hears through its standard input, answers in lines of JSON on its standard
output, and ends itself when its standard input closes, so none outlives this process however that ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from backends import BackendError, children
from backends.lightning.share import RankLost

START_SECONDS = 300.0  # to import torch and Lightning, on a busy machine
ANSWER_SECONDS = 300.0
GRACE_SECONDS = 10.0  # until a death that was felt is seen
LAST_LINES = 15


class RankError(BackendError):
    """A rank failed, so the run did; the message says which, and its last words."""

    exit_code = 1


class Worker:
    """One rank's process."""

    def __init__(self, rank: int) -> None:
        self.rank, self.errors = rank, tempfile.TemporaryFile()  # noqa: SIM115 (closed in `end`)
        self.process = subprocess.Popen(
            children.command("-m", "backends.lightning.worker", str(rank)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, bufsize=0,
            env=children.environment(),
            start_new_session=True,  # Ctrl-C in a terminal is for this process, which then ends the others
        )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self.to, self.out = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.to, False)
        self._heard = b""

    def tell(self, content: bytes) -> None:
        """Write a frame. Raises RankLost if it is not taken in time."""
        left, until = memoryview(content), time.monotonic() + ANSWER_SECONDS
        while left:
            if not select.select([], [self.to], [], max(0.0, until - time.monotonic()))[1]:
                raise RankLost(f"rank {self.rank} takes no more orders")
            try:
                left = left[os.write(self.to, left) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise RankLost(f"rank {self.rank} cannot be reached: {error}") from error

    def answer(self, seconds: float) -> dict[str, Any]:
        """Its next line. Raises RankLost if there is none in time."""
        until = time.monotonic() + seconds
        while b"\n" not in self._heard:
            if not select.select([self.out], [], [], max(0.0, until - time.monotonic()))[0]:
                raise RankLost(f"rank {self.rank} (process {self.process.pid}) did not answer within {seconds:.0f} seconds")
            part = os.read(self.out, 65536)
            if not part:
                raise RankLost(f"rank {self.rank} fell silent")
            self._heard += part
        line, _, self._heard = self._heard.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def last_words(self) -> str:
        """The end of what it wrote to its standard error."""
        self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, self.errors.tell() - 4096))
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-LAST_LINES:]) or "(it wrote nothing to its standard error)"

    def fate(self) -> str:
        """How it ended."""
        code = self.process.returncode
        ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"rank {self.rank} (process {self.process.pid}) {ended}"

    def end(self) -> None:
        """Whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            assert stream is not None
            stream.close()


class Workers:
    """All the other ranks. The first that ends unasked takes the others with it, so that nobody waits for it."""

    def __init__(self, world: int, abort: Callable[[], None]) -> None:
        """`abort` frees this process from waiting for a rank that is gone, where its sockets do not."""
        self.world, self.abort = world, abort
        self.members: list[Worker] = []
        self.ending = False
        self.lost: Worker | None = None
        self.died = threading.Event()
        self._lock = threading.Lock()
        self._watching: list[threading.Thread] = []

    def start(self) -> None:
        """Start all, and wait until each has imported what it needs. Raises RankLost."""
        for rank in range(1, self.world):
            self.members.append(Worker(rank))
            watch = threading.Thread(target=self._watch, args=(self.members[-1],), daemon=True, name=f"rank {rank}")
            watch.start()
            self._watching.append(watch)
        self.answers(START_SECONDS)

    def tell(self, content: bytes) -> None:
        """The same to all."""
        for worker in self.members:
            worker.tell(content)

    def answers(self, seconds: float = ANSWER_SECONDS) -> list[dict[str, Any]]:
        """One line of each."""
        return [worker.answer(seconds) for worker in self.members]

    def error(self, cause: Exception) -> RankError:
        """What to raise for a failure that was felt here; it may take a moment until its origin is seen."""
        self.died.wait(GRACE_SECONDS)
        if self.lost is None:
            return RankError(f"the {self.world} ranks could not go on together: {cause}; start the run again")
        return RankError(
            f"{self.lost.fate()} and so ended the run of {self.world} ranks; start the run again: if it keeps checkpoints, "
            f"it goes on from the last. The last lines of rank {self.lost.rank}:\n{self.lost.last_words()}"
        )

    def end(self) -> None:
        """All of them, now."""
        with self._lock:
            self.ending = True
        for worker in self.members:
            worker.process.kill()
        for watch in self._watching:
            watch.join()
        for worker in self.members:
            worker.end()

    def _watch(self, worker: Worker) -> None:
        worker.process.wait()
        with self._lock:
            if self.ending or self.lost is not None:
                return
            self.lost = worker
            for other in self.members:
                other.process.kill()
        self.died.set()
        self.abort()


@contextmanager
def started(world: int, abort: Callable[[], None]) -> Iterator[Workers]:
    """The other ranks, ready. None is left afterwards. A rank that is lost meanwhile comes out as RankError."""
    workers = Workers(world, abort)
    try:
        workers.start()
        yield workers
    except RankLost as error:
        raise workers.error(error) from error
    except RuntimeError as error:
        # NCCL tells of a lost rank at whatever operation comes next.
        if workers.lost is None:
            raise
        raise workers.error(error) from error
    finally:
        workers.end()
