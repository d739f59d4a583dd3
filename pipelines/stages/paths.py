"""Where the outs of the stages stand, and who may write there: one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.project import project_of

LOCK_SECONDS = 5.0


class StageError(RuntimeError):
    """A stage that cannot go on. `exit_code` 2: what it was given is not as it must be; 1: it held the pipeline."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class HeldError(StageError):
    """A stage that did its work and wrote its outs; what it found holds the pipeline."""


@dataclass(frozen=True)
class RunPaths:
    """Every path of one run, below `root`."""

    root: Path = Path()
    base: Path = Path()  # where a relative data.source starts
    project: Path | None = None  # it keeps the count of who opened the test rows; None: found from `root`

    @property
    def data(self) -> Path:
        """The three parts, and what is known about them."""
        return self.root / "outputs/data"

    @property
    def about(self) -> Path:
        """What is known about the data; written last, so that it stands for the whole."""
        return self.data / "about.json"

    @property
    def trained(self) -> Path:
        """The outs of train."""
        return self.root / "outputs/train"

    @property
    def model(self) -> Path:
        """The weights of the best epoch."""
        return self.trained / "model.safetensors"

    @property
    def run(self) -> Path:
        """What was trained, on what, and how it ended."""
        return self.trained / "run.json"

    @property
    def history(self) -> Path:
        """One row an epoch."""
        return self.trained / "history.csv"

    def report(self, stage: str) -> Path:
        """The outs of validate, or of test."""
        return self.root / "outputs" / stage

    def checkpoint(self, fingerprint: str) -> Path:
        """Where a run that is not over keeps its state."""
        return self.root / f".deltarule/checkpoint-{fingerprint}.safetensors"

    def carried(self, model_hash: str) -> Path:
        """Where the files that a run carries of a network wait until they are on record."""
        return self.root / ".deltarule/carried" / model_hash[:16]

    @property
    def ledger(self) -> Path:
        """Which experiments opened which test rows: one for the whole project."""
        return (self.project or project_of(self.root)) / ".deltarule/test-openings.jsonl"

    def need(self, path: Path, command: str) -> Path:
        """`path`, or StageError if it is not there yet."""
        if path.exists():
            return path
        raise StageError(f"{self.shown(path)} is missing; run `deltarule {command}` or `dvc repro` first", exit_code=2)

    def shown(self, path: Path) -> str:
        """A path as a message names it."""
        return path.relative_to(self.root).as_posix()

    @property
    def lock(self) -> Path:
        """What the process holds that writes below the root."""
        return self.root / ".deltarule/stage.lock"

    def is_free(self) -> bool:
        """Whether no process works in the root, and this one could."""
        from filelock import FileLock

        with suppress(OSError), FileLock(self.lock, timeout=0):  # Timeout is one
            return True
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the root.

        Raises StageError if another process does; the system frees the lock of one that was killed.
        """
        from filelock import FileLock, Timeout

        self.lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            held = FileLock(self.lock, is_singleton=True).acquire(LOCK_SECONDS)  # who has it may carry out stages
        except Timeout:
            raise StageError(
                f"another process is running a stage in {self.root.resolve()}; wait for it to end, or stop it, and try again"
            ) from None
        with held:
            yield
