"""code: what stages depend on beside spec and data, for projects in which our source is no file that DVC could watch."""

from __future__ import annotations

from pathlib import Path

from backends.weights import write_atomically
from pipelines.spec import identity


def write(folder: Path, backend: str) -> dict[str, str]:
    """A file a stage, with the hash of the code that it runs; returns stage -> hash. Raises BackendError."""
    found = {stage: identity.source_of(stage, backend) for stage in identity.SOURCES}
    for stage, digest in found.items():
        write_atomically(folder / stage, f"{digest}\n".encode())
    return found
