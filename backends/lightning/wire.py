"""What rank 0 tells the other ranks, through their standard input: numbers as JSON and arrays, in one frame.

safetensors carries both; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

import numpy as np

from backends.base import Chunk, NDArray

LENGTH = struct.Struct("<Q")
Message = tuple[dict[str, Any], dict[str, NDArray]]


def frame(numbers: dict[str, Any], arrays: dict[str, NDArray]) -> bytes:
    """One message, its length first."""
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(value) for name, value in arrays.items()}, {"json": json.dumps(numbers)})
    return LENGTH.pack(len(content)) + content


def read(file: BinaryIO) -> Message | None:
    """The next message; None when the sender is gone."""
    from safetensors.numpy import load

    head = _exactly(file, LENGTH.size)
    content = _exactly(file, LENGTH.unpack(head)[0]) if head else None
    if content is None:
        return None
    (size,) = LENGTH.unpack(content[: LENGTH.size])
    header = json.loads(content[LENGTH.size : LENGTH.size + size])
    return json.loads(header["__metadata__"]["json"]), load(content)


def chunk_frame(chunk: Chunk) -> bytes:
    """A chunk of steps."""
    return frame({"epoch": chunk.epoch, "step": chunk.step}, {"rows": chunk.rows, "noise": chunk.noise, "rates": chunk.rates})


def chunk_of(message: Message) -> Chunk:
    """What `chunk_frame` wrote."""
    numbers, arrays = message
    return Chunk(numbers["epoch"], numbers["step"], arrays["rows"], arrays["noise"], arrays["rates"])


def _exactly(file: BinaryIO, count: int) -> bytes | None:
    parts, missing = [], count
    while missing:
        part = file.read(missing)
        if not part:
            return None
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
