"""Everything that the benchmark uses of imgcls, in one place."""

from __future__ import annotations

import copy
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from imgcls.config import TrainConfig, from_dict
from imgcls.data.loaders import Batch, Batches
from imgcls.data.pictures import SLACK, in_memory
from imgcls.device import fast_float32
from imgcls.distributed import World
from imgcls.engine.hold import hold
from imgcls.engine.loop import train_epoch
from imgcls.engine.plan import Plan, State, build
from imgcls.engine.prepare import prepare, training_batches
from imgcls.engine.train import train
from imgcls.events import EpochEnded, Event, Stepped
from imgcls.inference.pool import available_cpus

CPU = torch.device("cpu")
COMMAND = (sys.executable, "-m", "imgcls")
PLAIN = ("--no-pretrained", "--overwrite")  # no download, and the same folder in every pair


def settings(data: Path, **asked: Any) -> TrainConfig:
    """Return settings by the names of the flags."""
    return from_dict({"data": str(data), "pretrained": False} | asked)


def batches(data: Path, **asked: Any) -> Batches:
    """Return training batches as `train` makes them, from files."""
    config = settings(data, **asked)
    return training_batches(prepare(config.data), config.data)


def cached(some: Batches) -> Batches:
    """Return the same batches from memory."""
    limit = int(SLACK * some.pictures.bytes()) + 2**20
    store = in_memory(some.pictures, available_cpus(), limit, lambda done: None)
    if store is None:
        raise MemoryError("the pictures do not fit")
    return some.from_store(store, CPU)


def epochs(some: Batches, count: int = 1) -> Callable[[], Iterable[Any]]:
    """Return a function that gives the batches of the next epochs."""
    numbers = itertools.count(1)
    return lambda: itertools.chain.from_iterable(some.epoch(next(numbers)) for _ in range(count))


def built(config: TrainConfig) -> tuple[State, Plan]:
    """Put a run together as `train` does, its images held where the settings say."""
    state, plan, _ = build(config, prepare(config.data), World(), None)
    return state, hold(state, plan, silent)


def on_ready_batches(plan: Plan) -> tuple[Plan, list[Batch]]:
    """Return the plan with batches that were made before and are on the device already, and these batches."""
    made = [batch.to(plan.device) for batch in plan.batches.epoch(1)]
    ready = copy.copy(plan.batches)
    ready.epoch = lambda epoch: iter(made)  # type: ignore[method-assign]
    return replace(plan, batches=ready), made


def run_epoch(state: State, plan: Plan) -> tuple[float, float]:
    """Train an epoch as `train` does; seconds, and the share of them that batches were waited for."""
    began = time.perf_counter()
    with fast_float32(plan.device):
        trained = train_epoch(state, plan, 1, 0, silent)
    return time.perf_counter() - began, trained["data_wait"]


def run_steps(state: State, plan: Plan, made: Iterable[Batch]) -> tuple[float]:
    """Make the bare steps of an epoch, eagerly: forward, backward, optimizer; seconds."""
    model = state.model.train()
    began = time.perf_counter()
    with fast_float32(plan.device):
        for batch in made:
            with torch.autocast(plan.device.type, plan.amp, enabled=plan.amp is not None):
                loss = F.cross_entropy(model(batch.images), batch.labels)
            loss.backward()
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
        if plan.device.type == "cuda":
            torch.cuda.synchronize()
    return (time.perf_counter() - began,)


def epochs_of(config: TrainConfig) -> list[dict[str, Any]]:
    """Train, and return the metrics of each epoch with `saving`, the seconds that its checkpoints took."""
    rows: list[dict[str, Any]] = []
    validated = 0.0

    def report(event: Event) -> None:
        nonlocal validated
        if isinstance(event, Stepped):
            validated = time.perf_counter()
        elif isinstance(event, EpochEnded):  # told after the files are written
            rows.append(event.metrics | {"saving": time.perf_counter() - validated})

    train(config, report)
    return rows


def silent(event: object) -> None:
    """Report to nobody."""


def checkpoint(folder: Path, data: Path, arch: str, *options: str) -> Path:
    """Train a little on a few images; returns best.pt."""
    run(
        *COMMAND,
        "train",
        "--data",
        data,
        "--arch",
        arch,
        "--epochs",
        1,
        "--limit",
        8,
        "--out",
        folder,
        *PLAIN,
        *options,
    )
    return folder / "best.pt"


def exported(checkpoint: Path) -> Path:
    path = checkpoint.with_suffix(".onnx")
    run(*COMMAND, "export", "--ckpt", checkpoint, "--output", path)
    return path


def run(*command: object, stdin: Path | None = None, cwd: Path | None = None) -> tuple[str, float]:
    """Run a process; returns its standard output and the seconds from shell to shell."""
    words = [str(word) for word in command]
    began = time.perf_counter()
    with open(stdin or os.devnull, "rb") as given:
        done = subprocess.run(words, stdin=given, capture_output=True, text=True, cwd=cwd, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[1:5])} …: {' '.join(done.stderr.strip().splitlines()[-1:])}")
    return done.stdout, seconds


def answered(*command: object) -> tuple[float, float]:
    """Run a process that says something on stderr when it has loaded; returns its seconds, and those after that."""
    words = [str(word) for word in command]
    began = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        loaded = time.perf_counter()
        said += process.stderr.read()
    ended = time.perf_counter()
    if process.returncode:
        raise RuntimeError(f"{' '.join(words[1:5])} …: {' '.join(said.strip().splitlines()[-1:])}")
    return ended - began, ended - loaded
