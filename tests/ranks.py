"""Training in several processes, as torchrun starts them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable

from small_runs import run

from imgcls.config import TrainConfig
from imgcls.errors import ImgclsError, Interrupted
from imgcls.events import Event


def _forked(rank: int, count: int, port: int, config: TrainConfig, also: Callable[[int, Event], None]) -> None:
    """Train as one of several processes, and end with the command's exit code."""
    place = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
    code = 0
    try:
        run(config, lambda event: also(rank, event))
    except ImgclsError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
    except Interrupted as interrupted:
        code = 128 + interrupted.signum
    os._exit(code)


def two_processes(
    config: TrainConfig, also: Callable[[int, Event], None] = lambda rank, event: None, count: int = 2
) -> list[int | None]:
    """Train in two processes, or more; show `also` the events of each; return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")  # another interpreter would import torch for ten seconds
    processes = [fork.Process(target=_forked, args=(rank, count, port, config, also)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]
