"""Lightning drives: a Trainer's "batch" is a chunk of optimizer steps, its dataloader the supervisor.

`training_step` takes the `dataloader_iter` itself, because Lightning otherwise fetches one batch ahead, and the next
chunk depends on what becomes of this one. Nothing is logged, written or printed, and signals stay the program's own.
"""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from backends.base import Chunk, Losses

if TYPE_CHECKING:
    from pytorch_lightning.strategies import DDPStrategy as Strategy

    from backends.lightning.stack import LightningStack

Report = Callable[[Chunk, Losses], None]
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Lightning puts handlers of its own in their places


class StackModule(pl.LightningModule):
    """A stack as Lightning knows it. An error in a step ends the fit and waits in `error`, unchanged.

    `at_once`: all chunks are one of Lightning's steps. Before each of its steps Lightning lets all ranks wait for each other,
    and a validation on rank 0 may take longer than that wait may last.
    """

    def __init__(self, stack: LightningStack, report: Report, handlers: Handlers, at_once: bool) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = stack.network
        self.stack, self.report, self.handlers, self.at_once = stack, report, handlers, at_once
        self.error: BaseException | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The stack's own."""
        return self.stack.optimizer

    def on_train_start(self) -> None:
        """Lightning has just taken the signals; SIGTERM would become an exit with status 0, once a chunk is over."""
        self.handlers.restore()

    def training_step(self, dataloader_iter: Iterator[tuple[Chunk, int, int]]) -> None:
        """Run a chunk and report it. The next one is asked for at the next call."""
        try:
            while (chunk := next(dataloader_iter, None)) is not None:
                self.report(chunk[0], self.stack.run(chunk[0]))
                if not self.at_once:
                    break
        except BaseException as error:  # Lightning would turn Ctrl-C into an exit and swallow a StopIteration
            self.error = error
            self.trainer.should_stop = True


class Chunks:
    """The chunks as a dataloader, which Lightning calls `iter` on several times."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self.chunks = iter(chunks)

    def __iter__(self) -> Iterator[Chunk]:
        return self.chunks


class Handlers:
    """The signal handlers as they are now. Python allows only the main thread to set them, Lightning too."""

    def __init__(self) -> None:
        self.before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self.before.items():
                if handler is not None:  # None: not set from Python, cannot be set again
                    signal.signal(number, handler)


def drive(stack: LightningStack, chunks: Iterable[Chunk], report: Report, strategy: Strategy | None = None) -> None:
    """Fit until there are no more chunks. Whatever chunks, steps or report raise comes out as it is, Ctrl-C too.

    On one device, or as one of the ranks of `strategy`.
    """
    handlers = Handlers()
    module = StackModule(stack, report, handlers, at_once=strategy is not None)
    try:
        with _silence():
            trainer(stack.device, strategy).fit(module, train_dataloaders=Chunks(chunks))
    except SystemExit as exit_:
        # Lightning exits when Ctrl-C falls between two chunks.
        if isinstance(exit_.__context__, KeyboardInterrupt):
            raise exit_.__context__ from None
        raise
    finally:
        handlers.restore()
        stack.settle()
    if module.error is not None:
        raise module.error


def trainer(device: torch.device, strategy: Strategy | None) -> pl.Trainer:
    """One endless epoch, and nothing besides."""
    own: dict[str, Any]
    if strategy is None:
        own = {"devices": 1 if device.index is None else [device.index]}
        own["plugins"] = [LightningEnvironment()]  # a SLURM allocation is not ours to interpret
    else:
        own = {"strategy": strategy, "devices": strategy.num_processes}
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_autolog_hparams=False,
        use_distributed_sampler=False,
        **own,
    )


@contextmanager
def _silence() -> Iterator[None]:
    """No word from Lightning about GPUs, tips and experimental signatures; the level is put back."""
    loggers: list[Any] = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
