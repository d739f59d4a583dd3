"""One of the ranks of a run on several devices: `python -m backends.lightning.rank FOLDER`, started for ranks.py."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection
from pathlib import Path

import numpy as np
from torch.distributed.elastic.multiprocessing.errors import record

from backends import weights
from backends.base import Chunk, Data, Losses, Machine
from backends.lightning import Lightning
from backends.lightning.ranks import pack
from backends.lightning.stack import LightningStack
from backends.spec import Trial
from backends.supervisor import Checkpoint


@record  # a traceback then stands in the launcher's report
def main() -> None:
    """Say which rank this is, run the chunks, and leave the digest of the weights."""
    folder = Path(sys.argv[1])
    connection = Client(str(folder / "socket"), "AF_UNIX")
    stack = take_up(folder)
    connection.send_bytes(str(stack.share.rank).encode())

    def answer(chunk: Chunk, losses: Losses) -> None:
        if stack.share.rank == 0:
            connection.send_bytes(pack({**losses._asdict(), **stack.state()}))

    stack.drive(chunks(connection), answer)
    connection.send_bytes(weights.digest(stack.weights()).encode())


def take_up(folder: Path) -> LightningStack:
    """The stack as it stands in the process that started the ranks."""
    job = Checkpoint.load(folder / "job")
    trials = [Trial.model_validate_json(json.dumps(trial)) for trial in job.numbers["trials"]]
    X, y = np.load(folder / "X.npy", mmap_mode="r"), np.load(folder / "y.npy", mmap_mode="r")
    own = folder / "weights.npy"
    data = Data(X, y, X[:0], y[:0], tuple(job.numbers["folds"]), np.load(own) if own.exists() else None)
    stack = Lightning().stack(trials, data, Machine(**job.numbers["machine"]))
    stack.load(job.arrays)
    return stack


def chunks(connection: Connection) -> Iterator[Chunk]:
    """Until there are no more. Raises EOFError when the process that deals them is gone."""
    from safetensors.numpy import load

    while content := connection.recv_bytes():
        arrays = load(content)
        yield Chunk(arrays.pop("epoch").item(), arrays.pop("step").item(), **arrays)


if __name__ == "__main__":
    main()
    gc.freeze()  # else Python looks for garbage among PyTorch's objects for 2 s before it ends
