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
        rows = [torch.empty_like(values) for _ in range(self.size)]
        if self.size == 1:
            return values[None]
        dist.all_gather(rows, values)
        return torch.stack(rows)

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
        if self.size > 1 and not self.is_main:
            dist.barrier()
        yield
        if self.size > 1 and self.is_main:
            dist.barrier()


def world_from_environment() -> World:
    """Read what torchrun put into the environment."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if not all(name in os.environ for name in names):
        return World()
    return World(*(int(os.environ[name]) for name in names))


@contextmanager
def joined(world: World, device: torch.device) -> Iterator[None]:
    """Connect the processes for the length of the block."""
    if world.size == 1:
        yield
        return
    patience = timedelta(hours=6)  # the first process may decode a whole data set for the others
    # It warns of 1x1 convolutions whose strides are the same numbers in both orders.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if device.type == "cuda":
        dist.init_process_group("nccl", device_id=device, timeout=patience)
    else:
        dist.init_process_group("gloo", timeout=patience)
    try:
        yield
    finally:
        dist.destroy_process_group()
