"""Lightning drives: a Trainer's "batch" is a chunk of optimizer steps, its dataloader the supervisor.

`training_step` takes the `dataloader_iter` itself, because Lightning otherwise fetches one batch ahead, and the next
chunk depends on what becomes of this one. Nothing is logged, written or printed, and signals stay the program's own.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy

from backends.base import Chunk, Losses, Report

Handlers = dict[signal.Signals, Any]
STALL = timedelta(minutes=5)  # how long a rank waits for the others within a step


class StackModule(pl.LightningModule):
    """A stack as Lightning knows it: something that takes chunks. An error ends the fit and waits in `error`, unchanged.

    `at_once`: all chunks are one of Lightning's steps. Before each of its steps Lightning lets all ranks wait for each other,
    and what happens between two chunks may take longer than that wait may last.
    """

    def __init__(self, run: Callable[[Chunk], Losses], report: Report, handlers: Handlers, at_once: bool) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.run, self.report, self.handlers, self.at_once = run, report, handlers, at_once
        self.error: BaseException | None = None

    def configure_optimizers(self) -> None:
        """The stack's own steps."""

    def on_train_start(self) -> None:
        """Lightning has just taken SIGTERM, which would become an exit with status 0, once a chunk is over."""
        restore(self.handlers)

    def training_step(self, dataloader_iter: Iterator[tuple[Chunk, int, int]]) -> None:
        """Run a chunk and report it. The next one is asked for at the next call."""
        try:
            while (chunk := next(dataloader_iter, None)) is not None:
                self.report(chunk[0], self.run(chunk[0]))
                if not self.at_once:
                    break
        except BaseException as error:  # Lightning would turn Ctrl-C into an exit and swallow a StopIteration
            self.error = error
            self.trainer.should_stop = True


def restore(handlers: Handlers) -> None:
    """Put signal handlers back; Python allows that only to the main thread, and not for one that was not set from Python."""
    for number, handler in handlers.items():
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)


class RankStrategy(DDPStrategy):
    """DDP whose gradients are summed by one all_reduce of the flat buffer (batches.py), not by the hooks of a wrapper."""

    def __init__(self) -> None:
        super().__init__(timeout=STALL)

    def configure_ddp(self) -> None:
        """No wrapper: its hooks wait for gradients that `.backward()` leaves behind."""


def drive(run: Callable[[Chunk], Losses], chunks: Iterable[Chunk], report: Report, device: torch.device, ranks: bool) -> None:
    """Fit until there are no more chunks. Whatever chunks, steps or report raise comes out as it is, Ctrl-C too.

    On one device, or with `ranks` as one of the processes that torch's launcher started.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}  # Lightning sets its own
    module = StackModule(run, report, handlers, at_once=ranks)
    try:
        with _silence():
            trainer(device, ranks).fit(module, train_dataloaders=iter(chunks))
    except SystemExit as exit_:
        # Lightning exits when Ctrl-C falls between two chunks.
        if isinstance(exit_.__context__, KeyboardInterrupt):
            raise exit_.__context__ from None
        raise
    finally:
        restore(handlers)
    if module.error is not None:
        raise module.error


def trainer(device: torch.device, ranks: bool) -> pl.Trainer:
    """One endless epoch, and nothing besides."""
    own: dict[str, Any]
    if ranks:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        own = {"strategy": RankStrategy(), "devices": here, "num_nodes": int(os.environ["WORLD_SIZE"]) // here}
    else:
        own = {"devices": 1 if device.index is None else [device.index]}
        own["plugins"] = [LightningEnvironment()]  # a SLURM allocation is not ours to interpret
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
