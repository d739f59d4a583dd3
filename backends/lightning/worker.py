"""One of the other ranks of a run on several devices: `python -m backends.lightning.worker RANK`, started by rank 0.

It has no supervisor: it takes up the state that it is told and runs the chunks that it is dealt. It answers three times: when
it has imported all it needs, when it has taken up the state, and with the digest of its weights at the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any, BinaryIO

from backends import weights
from backends.base import Chunk, Data, Machine
from backends.lightning import loop, strategy, wire
from backends.lightning.share import Share
from backends.lightning.stack import LightningStack
from backends.spec import Trial

ORPHANED = 3


def main() -> None:
    """Answer, take up the job, answer, do it, answer with the weights' digest."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 ends this process
    inbox, answers = Inbox(os.fdopen(_taken(0), "rb")), _taken(1)
    _answer(answers, {"ready": True})
    stack, ranks = take_up(int(sys.argv[1]), inbox.next())
    _answer(answers, {"set": True})
    loop.drive(stack, inbox.chunks(), lambda chunk, losses: None, ranks)
    strategy.leave()
    _answer(answers, {"weights": weights.digest(stack.weights())})


def take_up(rank: int, job: wire.Message) -> tuple[LightningStack, strategy.RanksStrategy]:
    """Rank 0's stack as it stands there, with this rank's share of each batch, and the way into the group."""
    numbers, arrays = job
    share = Share(rank, numbers["world"])
    trials = [Trial.model_validate_json(json.dumps(trial)) for trial in numbers["trials"]]
    X, y = arrays["X"], arrays["y"]
    machine, device = Machine(**numbers["machine"]), strategy.device_of(rank, numbers["device"])
    stack = LightningStack(trials, Data(X, y, X[:0], y[:0], tuple(numbers["folds"])), machine, device)
    stack.load({name.removeprefix("state."): value for name, value in arrays.items() if name.startswith("state.")})
    stack.share = share
    return stack, strategy.RanksStrategy(share, strategy.join_store(numbers["port"]), device.type)


class Inbox:
    """What rank 0 says, read in a thread of its own: the moment rank 0 is gone, this process is too, whatever it waits for."""

    def __init__(self, file: BinaryIO) -> None:
        self.messages: SimpleQueue[wire.Message] = SimpleQueue()
        threading.Thread(target=self._listen, args=(file,), daemon=True).start()

    def next(self) -> wire.Message:
        """Wait for the next message."""
        return self.messages.get()

    def chunks(self) -> Iterator[Chunk]:
        """Chunk after chunk, until rank 0 says it is the end."""
        while "end" not in (message := self.next())[0]:
            yield wire.chunk_of(message)

    def _listen(self, file: BinaryIO) -> None:
        while (message := wire.read(file)) is not None:
            self.messages.put(message)
        os._exit(ORPHANED)


def _taken(fd: int) -> int:
    """A copy of a standard stream for us alone; whatever frameworks read is empty, and what they print is an error's."""
    kept = os.dup(fd)
    if fd == 0:
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        os.close(empty)
    else:
        os.dup2(2, fd)
    return kept


def _answer(fd: int, answer: dict[str, Any]) -> None:
    os.write(fd, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
