"""One process is a world of one; two that torchrun would start find each other and add up."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from imgcls import distributed
from imgcls.distributed import World, joined, lost, world_from_environment
from imgcls.errors import ResourceError, UsageError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
PLACE = ("MASTER_ADDR", "MASTER_PORT")


def place(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    """Set what torchrun sets."""
    for name, value in zip((*NAMES, *PLACE), values, strict=False):
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def outside_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *PLACE):
        monkeypatch.delenv(name, raising=False)


def test_without_torchrun_this_process_is_the_whole_world() -> None:
    world = world_from_environment()
    assert world == World(rank=0, size=1, local_rank=0, local_size=1)
    assert world.is_main


def test_the_world_is_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, "5", "8", "1", "4", "10.0.0.1", "29500")
    world = world_from_environment()
    assert world == World(rank=5, size=8, local_rank=1, local_size=4)
    assert not world.is_main


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            ("x", "2", "0", "2", "here", "29500"),
            "RANK=x: is no number; start the processes with torchrun, or ",
        ),
        (("0", "", "0", "2", "here", "29500"), "WORLD_SIZE=: is no number; "),
        (("2", "2", "0", "2", "here", "29500"), "RANK=2 of WORLD_SIZE=2: there is no such process; "),
        (("0", "2", "0", "2"), "WORLD_SIZE=2: no MASTER_ADDR and MASTER_PORT to meet at; start the processes with tor"),
    ],
)
def test_an_environment_that_cannot_be_right_is_refused(
    monkeypatch: pytest.MonkeyPatch, values: tuple[str, ...], sentence: str
) -> None:
    place(monkeypatch, *values)
    with pytest.raises(UsageError) as caught:
        world_from_environment()
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_meets_nobody_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    """The first waits for the second, or the second for the first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place(monkeypatch, str(rank), "2", str(rank), "2", "127.0.0.1", port)
    monkeypatch.setattr(distributed, "MEETING", timedelta(seconds=1))
    sentence = rf"^process {rank} of 2 did not meet the others at 127.0.0.1:{port} \(.*\); start the processes with tor"
    with pytest.raises(ResourceError, match=sentence), joined(world_from_environment(), torch.device("cpu")):
        pass


def test_which_errors_mean_that_another_process_is_gone() -> None:
    two, gone = (
        World(0, 2, 0, 2),
        RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]"),
    )
    assert lost(two, gone) == "process 0 of 2 lost its connection to another, which failed or was killed"
    assert lost(two, dist.DistBackendError("watchdog")) is not None
    assert lost(two, RuntimeError("shapes do not match")) is None
    assert lost(World(), gone) is None


def test_half_of_an_environment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers other than torchrun set some of these names for purposes of their own."""
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert world_from_environment() == World()


def test_a_world_of_one_adds_nothing_waits_for_nobody_and_connects_to_nothing() -> None:
    world = World()
    with joined(world, torch.device("cpu")):
        assert not dist.is_initialized()
        assert world.sum(torch.tensor([2.0, 3.0])).tolist() == [2.0, 3.0]
        assert world.broadcast_object("mine") == "mine"
        with world.main_first():
            pass


PROGRAM = """
import torch
from imgcls.distributed import joined, world_from_environment
world = world_from_environment()
with joined(world, torch.device("cpu")):
    total = world.sum(torch.tensor([world.rank + 1.0, 10.0]))
    with world.main_first():
        pass
    assert world.broadcast_object(world.rank) == 0
assert not torch.distributed.is_initialized()
print(world.rank, world.is_main, total.tolist())
"""


def test_two_processes_sum_over_both() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in (0, 1):
        own = dict(zip(NAMES, (str(rank), "2", str(rank), "2"), strict=True))
        environment = os.environ | own | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes.append(
            subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True)
        )
    answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert answers == ["0 True [3.0, 20.0]", "1 False [3.0, 20.0]"]
