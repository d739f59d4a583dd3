"""Lightning's DDP strategy over processes that are there already, meeting at a store that rank 0 holds open.

The process group is DDPStrategy's; its wrapper is left out. The network is one flat parameter, so the wrapper's buckets
would be a copy of it, and its hooks wait for gradients that `.backward()` leaves behind, where ours come from
`autograd.grad` and are summed by one all_reduce (share.py). Nothing then has to be kept from replacing a parameter, and a
rank without rows needs no detour. Run on gloo; on NCCL, one GPU a rank, it has not been run yet.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch hides it where it is built without

from backends.lightning.share import Share

HOST = "127.0.0.1"
STALL = timedelta(minutes=5)  # how long a rank waits for the others within a step


def open_store() -> TCPStore:
    """Where the ranks of this run meet: on this machine alone, at a port that nobody else can take meanwhile."""
    listening = socket.create_server((HOST, 0))
    port = listening.getsockname()[1]
    return TCPStore(HOST, port, None, True, STALL, False, master_listen_fd=listening.detach())


def join_store(port: int) -> TCPStore:
    """The same, from another rank."""
    return TCPStore(HOST, port, None, False, STALL)


def device_of(rank: int, kind: str) -> torch.device:
    """The processor for all, or a GPU each."""
    return torch.device(kind) if kind == "cpu" else torch.device(kind, rank)


class Meeting(ClusterEnvironment):
    """Who takes part, and where: settled by rank 0, so that Lightning neither starts nor looks for processes."""

    def __init__(self, share: Share, port: int) -> None:
        self.share, self.port = share, port

    @property
    def creates_processes_externally(self) -> bool:
        """By processes.py."""
        return True

    @property
    def main_address(self) -> str:
        """This machine."""
        return HOST

    @property
    def main_port(self) -> int:
        """The store's."""
        return self.port

    @staticmethod
    def detect() -> bool:
        """Never found by itself."""
        return False

    def world_size(self) -> int:
        """Number of ranks."""
        return self.share.world

    def set_world_size(self, size: int) -> None:
        """It is settled."""

    def global_rank(self) -> int:
        """This process'."""
        return self.share.rank

    def set_global_rank(self, rank: int) -> None:
        """It is settled."""

    def local_rank(self) -> int:
        """All are on this machine."""
        return self.share.rank

    def node_rank(self) -> int:
        """There is one machine."""
        return 0


class RanksStrategy(DDPStrategy):
    """DDP without processes, ports and wrappers of its own. A fit joins the group; `leave` is the caller's."""

    def __init__(self, share: Share, store: TCPStore, kind: str) -> None:
        super().__init__(
            parallel_devices=[device_of(rank, kind) for rank in range(share.world)],
            cluster_environment=Meeting(share, store.port),
            process_group_backend="nccl" if kind == "cuda" else "gloo",
            timeout=STALL,
        )
        self.share, self.store = share, store

    def _configure_launcher(self) -> None:
        """Nothing to launch."""

    def setup_distributed(self) -> None:
        """Join the group."""
        self.set_world_ranks()
        with _loopback():
            dist.init_process_group(
                self.process_group_backend,
                store=self.store,
                rank=self.share.rank,
                world_size=self.share.world,
                timeout=STALL,
                device_id=None if self.root_device.type == "cpu" else self.root_device,
            )

    def configure_ddp(self) -> None:
        """No wrapper."""


def leave() -> None:
    """Out of the group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _loopback() -> Iterator[None]:
    """gloo listens where the machine's name leads to, unless it is told an interface."""
    name, found = "GLOO_SOCKET_IFNAME", [i for _, i in socket.if_nameindex() if i in ("lo", "lo0")]
    if name in os.environ or not found:
        yield
        return
    os.environ[name] = found[0]
    try:
        yield
    finally:
        del os.environ[name]
