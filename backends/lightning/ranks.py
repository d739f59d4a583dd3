"""Several devices: this process is rank 0 and decides; the others compute their share of every batch, and obey.

A drive starts the other ranks, tells them trials, training rows and state, deals them every chunk as it deals it to itself,
and ends them. So they are in step by construction: what `load` and `keep` do between two drives reaches them with the next
one's state, and that there are no more chunks is all they learn of stopping. Starting costs some seconds, once a drive.
Validation, signals, checkpoints and tracking are rank 0's alone, so each row is counted once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING

import torch.distributed as dist

from backends import BackendError, weights
from backends.base import Chunk, Losses
from backends.lightning import loop, wire
from backends.lightning.processes import RankError, Workers, started
from backends.lightning.share import ALONE, Share
from backends.lightning.strategy import RanksStrategy, leave, open_store

if TYPE_CHECKING:
    from backends.lightning.stack import LightningStack


def drive(stack: LightningStack, chunks: Iterable[Chunk], report: Callable[[Chunk, Losses], None]) -> None:
    """As `loop.drive`, on `stack.world` devices. Raises RankError, with its last lines, if a rank fails."""
    dealt = iter(chunks)
    first = next(dealt, None)
    if first is None:
        return
    if dist.is_initialized():
        raise BackendError(
            f"train.devices: {stack.world} needs this process to be in no process group of torch.distributed, and it is in one; "
            "leave it (destroy_process_group), or set train.devices: 1"
        )
    with started(stack.world, _abort) as workers:
        store = open_store()
        share = stack.share = Share(0, stack.world)
        try:
            workers.tell(job(stack, store.port))
            workers.answers()  # from here on, each can only fail where this process feels it
            strategy = RanksStrategy(share, store, stack.device.type)
            loop.drive(stack, _dealing(chain([first], dealt), workers), report, strategy)
            _check_in_step(stack, workers)
        finally:
            stack.share = ALONE
            leave()


def job(stack: LightningStack, port: int) -> bytes:
    """All that another rank must know, but its number."""
    assert stack.data is not None, "a stack without data cannot train"
    numbers = {
        "trials": [trial.model_dump(mode="json") for trial in stack.trials],
        "machine": asdict(stack.machine),
        "device": stack.device.type,
        "world": stack.world,
        "port": port,
        "folds": stack.data.folds,
    }
    state = {f"state.{name}": value for name, value in stack.state().items()}
    return wire.frame(numbers, {"X": stack.data.X, "y": stack.data.y, **state})


def _dealing(chunks: Iterable[Chunk], workers: Workers) -> Iterator[Chunk]:
    """Each chunk to the others as it is taken here; an end where there are no more."""
    for chunk in chunks:
        workers.tell(wire.chunk_frame(chunk))
        yield chunk
    workers.tell(wire.frame({"end": True}, {}))


def _check_in_step(stack: LightningStack, workers: Workers) -> None:
    """All ranks must have come to the same bits."""
    mine = weights.digest(stack.weights())
    for worker, answer in zip(workers.members, workers.answers(), strict=True):
        if answer["weights"] != mine:
            raise RankError(
                f"all ranks must come to the same weights, but those of rank {worker.rank} differ from rank 0's: "
                "the devices do not compute alike; set train.devices: 1"
            )


def _abort() -> None:
    """NCCL waits for a rank that is gone until its own timeout; gloo sees the closed socket, and needs no help. Not run yet."""
    if dist.is_initialized() and dist.get_backend() == "nccl":
        with suppress(Exception):  # the group may be leaving already
            dist.distributed_c10d._abort_process_group()
