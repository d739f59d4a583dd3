"""Several devices: a process each, a rank, started by torch's own launcher. This process decides, and the ranks compute.

The launcher (`python -m torch.distributed.run`) is a child, since within this process it would replace the signal handlers. All
ranks are dealt every chunk and compute their shares of its batches (rank.py); rank 0 answers with the losses and the state
after it. Validation, stopping and checkpoints go on here as with one device. Starting costs some seconds, once a drive.

Chunks and answers are safetensors on a Unix socket in a private folder: nothing is ever unpickled. A rank ends when its socket
closes, so none outlives this process, however that ends.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import chain
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from backends import children
from backends.base import Chunk, Losses, Report, Stack, State
from backends.errors import BackendError
from backends.supervisor import Checkpoint

START_SECONDS = 300.0  # to import torch and Lightning, on a busy machine
SEND_SECONDS = 300  # until a rank has taken a chunk
END_SECONDS = 30.0  # until the launcher has ended the other ranks and said why
LAST_CHARACTERS = 3000  # of what the launcher and its ranks wrote


class RankError(BackendError):
    """A rank failed, so the run did; the message says which, with the launcher's report."""

    exit_code = 1


def drive(stack: Stack, threads: int, chunks: Iterable[Chunk], report: Report) -> None:
    """Have `stack.machine.devices` ranks, of so many threads each, run the chunks. Raises RankError if one fails."""
    dealt = iter(chunks)
    first = next(dealt, None)
    if first is None:
        return
    short = None if len(tempfile.gettempdir()) < 80 else "/tmp"  # a socket's path has at most 104 characters
    with tempfile.TemporaryDirectory(dir=short) as folder:
        ranks = Ranks(Path(folder), stack, threads)
        try:
            ranks.accept()
            for chunk in chain([first], dealt):
                losses, state = ranks.run(chunk)
                stack.load(state)
                report(chunk, losses)
            ranks.finish()
        finally:
            ranks.end()


class Ranks:
    """The processes of one drive; to be ended whatever happens."""

    def __init__(self, folder: Path, stack: Stack, threads: int) -> None:
        """Write down what the ranks need, and start them."""
        assert stack.data is not None and isinstance(stack.machine.devices, int)
        self.world = stack.machine.devices
        self.connections: dict[int, Connection] = {}
        np.save(folder / "X.npy", stack.data.X)
        np.save(folder / "y.npy", stack.data.y)
        if stack.data.weights is not None:
            np.save(folder / "weights.npy", stack.data.weights)
        numbers = {
            "trials": [trial.model_dump(mode="json") for trial in stack.trials],
            "folds": stack.data.folds,
            "machine": asdict(replace(stack.machine, threads=threads)),
        }
        Checkpoint(numbers, stack.state()).save(folder / "job")
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(folder / "socket"))
        self.server.listen(self.world)
        self.server.settimeout(0.1)
        self.log = (folder / "log").open("w+b")
        launcher = ("-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={self.world}")
        self.launcher = subprocess.Popen(
            children.command(*launcher, "-m", "backends.lightning.rank", str(folder)),
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=environment(),
            start_new_session=True,  # Ctrl-C in a terminal is for this process, which then ends the ranks
        )  # fmt: skip

    def accept(self) -> None:
        """Wait until every rank has imported what it needs. Raises RankError if one does not come."""
        until = time.monotonic() + START_SECONDS
        while missing := sorted(set(range(self.world)) - set(self.connections)):
            with suppress(TimeoutError, EOFError):
                peer, _ = self.server.accept()
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
                connection = Connection(peer.detach())
                self.connections[int(connection.recv_bytes())] = connection
                continue
            if self.launcher.poll() is not None:
                raise self._error(f"rank {missing[0]} did not start")
            if time.monotonic() > until:
                raise self._error(f"rank {missing[0]} did not start within {START_SECONDS:.0f} seconds")

    def run(self, chunk: Chunk) -> tuple[Losses, State]:
        """The losses of a chunk, and the state after it."""
        from safetensors.numpy import load

        answer = load(self._ask(pack(chunk._asdict()), [0])[0])
        return Losses(*(answer.pop(name) for name in Losses._fields)), answer

    def finish(self) -> None:
        """Say that there are no more chunks. Raises RankError unless all ranks came to the same bits."""
        digests = self._ask(b"", range(self.world))
        for rank, digest in digests.items():
            if digest != digests[0]:
                raise RankError(
                    f"all ranks must come to the same weights, but those of rank {rank} differ from rank 0's: "
                    "the devices do not compute alike; set train.devices: 1"
                )

    def end(self) -> None:
        """No process is left."""
        for connection in self.connections.values():
            connection.close()
        self.server.close()
        self.launcher.terminate()
        try:
            self.launcher.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.launcher.kill()
            self.launcher.wait()
        self.log.close()

    def _ask(self, content: bytes, asked: Iterable[int]) -> dict[int, bytes]:
        """Tell all ranks, and wait for an answer of each that was asked; of the others, only their end can come."""
        rank, answers = 0, dict[int, bytes]()
        try:
            for rank, connection in self.connections.items():  # noqa: B007 (named if it fails)
                connection.send_bytes(content)
            while not set(asked) <= set(answers):
                silent = [number for number in self.connections if number not in answers]
                ready = wait([self.connections[number] for number in silent])
                for rank in (number for number in silent if self.connections[number] in ready):
                    answers[rank] = self.connections[rank].recv_bytes()
        except (EOFError, OSError) as error:
            raise self._error(f"rank {rank} ended") from error
        return answers

    def _error(self, what: str) -> RankError:
        """What to raise, once the launcher has seen it too."""
        with suppress(subprocess.TimeoutExpired):
            self.launcher.wait(END_SECONDS)
        self.log.seek(0)
        said = self.log.read().decode(errors="replace").strip()[-LAST_CHARACTERS:]
        return RankError(
            f"{what}, and so the run of {self.world} ranks; start the run again: if it keeps checkpoints, it goes on from the "
            f"last. The launcher's report:\n{said}"
        )


def environment() -> dict[str, str]:
    """The ranks', who must not import what lies in the current folder, and meet on this machine alone."""
    defaults = {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo", "OMP_NUM_THREADS": "1"}
    return defaults | children.environment() | {"PYTHONSAFEPATH": "1"}


def pack(values: Mapping[str, Any]) -> bytes:
    """Numbers and arrays by name, for `safetensors.numpy.load`."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(value) for name, value in values.items()})
