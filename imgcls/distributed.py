"""One process is a world of one: what torchrun tells us, and sums over all processes.

Knows nothing of models and data.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from imgcls.errors import ResourceError, UsageError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
HOW = "start the processes with torchrun"
MEETING = timedelta(minutes=5)  # in which all processes must have come together
PATIENCE = timedelta(hours=6)  # the first process may decode a whole data set for the others


@dataclass(frozen=True)
class World:
    """This process among all: rank 0 of 1 without torchrun."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def most(self, values: torch.Tensor) -> torch.Tensor:
        """Return the largest of each element of a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return values

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return the tensors of all processes, one row for each."""
        if self.size == 1:
            return values[None]
        rows = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(rows, values)
        return torch.stack(rows)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def broadcast(self, values: Iterable[torch.Tensor]) -> None:
        """Give every process the first one's values."""
        if self.size > 1:
            for value in values:
                dist.broadcast(value, 0)

    def broadcast_object(self, value: Any) -> Any:
        """Return the first process's value in every process."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, 0)
        return values[0]

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the first process finish the block before the others begin it: it fills the cache that they read."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()


def world_from_environment() -> World:
    """Read what torchrun put into the environment.

    Raises:
        UsageError: what is there cannot be right.
    """
    if not all(name in os.environ for name in NAMES):  # schedulers set some of them for purposes of their own
        return World()
    for name in NAMES:
        if not os.environ[name].isdecimal():
            raise UsageError(f"{name}={os.environ[name]}: is no number; {HOW}, or unset {name}")
    world = World(*(int(os.environ[name]) for name in NAMES))
    if world.rank >= world.size or world.local_rank >= world.local_size:
        raise UsageError(f"RANK={world.rank} of WORLD_SIZE={world.size}: there is no such process; {HOW}")
    if world.size > 1 and not os.environ.keys() >= {"MASTER_ADDR", "MASTER_PORT"}:
        raise UsageError(f"WORLD_SIZE={world.size}: no MASTER_ADDR and MASTER_PORT to meet at; {HOW}")
    return world


@contextmanager
def joined(world: World, device: torch.device) -> Iterator[None]:
    """Connect the processes for the length of the block.

    Raises:
        ResourceError: the others are not to be found.
    """
    if world.size == 1:
        yield
        return
    # It warns of 1x1 convolutions whose strides are the same numbers in both orders.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    try:
        store, rank, size = next(rendezvous("env://", world.rank, world.size, timeout=MEETING))
        store.set_timeout(PATIENCE)
        common: dict[str, Any] = {"store": store, "rank": rank, "world_size": size, "timeout": PATIENCE}
        if device.type == "cuda":
            dist.init_process_group("nccl", device_id=device, **common)
        else:
            dist.init_process_group("gloo", **common)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        problem = f"process {world.rank} of {world.size} did not meet the others at {where}"
        raise ResourceError(f"{problem} ({_first_line(error)}); {HOW}") from error
    try:
        yield
    except BaseException:
        if device.type != "cuda":  # where the others may be gone, and NCCL would wait for them
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def lost(world: World, error: BaseException) -> str | None:
    """Return what to say of an error that means that another process is gone; None: it means something else."""
    signs = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo/", "NCCL")
    if world.size == 1 or not isinstance(error, RuntimeError):
        return None
    if not isinstance(error, dist.DistError) and not any(sign in str(error) for sign in signs):
        return None
    return f"process {world.rank} of {world.size} lost its connection to another, which failed or was killed"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
