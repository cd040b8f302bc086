"""Everything that the benchmark uses of imgcls, in one place, and processes timed from shell to shell."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from table import Outcome, alternate
from torch.nn import functional as F

from imgcls.config import TrainConfig
from imgcls.data.batch import Batch, Data, Loader
from imgcls.data.cache import in_memory
from imgcls.data.draws import Integers
from imgcls.data.files import FileLoader
from imgcls.data.memory import FrameLoader, from_store
from imgcls.data.order import Order
from imgcls.device import fast_float32
from imgcls.distributed import World
from imgcls.engine.decide.build import build, choose_compute
from imgcls.engine.decide.inputs import decide_inputs, training_batches
from imgcls.engine.learn.caching import cached
from imgcls.engine.learn.epoch import train_epoch
from imgcls.engine.learn.learner import Learner
from imgcls.engine.learn.meter import Meter
from imgcls.engine.train import train
from imgcls.events import EpochEnded, Event, Stepped, silent
from imgcls.machine import available_cpus
from imgcls.settings import from_dict

COMMAND = (sys.executable, "-m", "imgcls")


def settings(data: Path, **asked: Any) -> TrainConfig:
    """Return settings by the names of the flags: on the CPU, nothing downloaded, a run replaces the one before."""
    return from_dict(TrainConfig, {"data": str(data), "device": "cpu", "pretrained": False, "overwrite": True} | asked)


def batches(data: Path, **asked: Any) -> FileLoader:
    """Return training batches of all images from files, as `train` makes them."""
    config = settings(data, val_split=0.0, **asked)
    return training_batches(decide_inputs(config), config)


def in_store(some: FileLoader) -> FileLoader | FrameLoader:
    """Return the same batches from memory."""
    limit = some.pictures.most_bytes() + 2**20
    store = in_memory(some.pictures, available_cpus(), limit, lambda done: None)
    if store is None:
        raise MemoryError("the pictures take more memory than estimated")
    return from_store(some, store, torch.device("cpu"))


def epochs(some: Loader, count: int = 1) -> Callable[[], Iterable[Any]]:
    """Return a function that gives the batches of the next epochs."""
    numbers = itertools.count(1)
    return lambda: itertools.chain.from_iterable(some.epoch(next(numbers)) for _ in range(count))


def built(config: TrainConfig) -> tuple[Learner, Data]:
    """Put a run together as `train` does, its images decoded before where the settings say so."""
    run, model, data, _ = build(config, choose_compute(config, World()), decide_inputs(config))
    data = cached(run, model, data, silent)
    return Learner(run, model, data.features), data


@dataclass(frozen=True, eq=False)
class Ready:
    """Batches that were made before and are on the device already."""

    made: list[Batch]
    order: Order
    labels: Integers
    nbytes: int = 0

    def __len__(self) -> int:
        return len(self.made)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the same ones in every epoch."""
        return iter(self.made[start:])


def made_ready(learner: Learner, data: Data) -> tuple[Data, list[Batch]]:
    """Return batches that were made before and are on the device already, as data for an epoch and as they are."""
    made = [batch.to(learner.run.device) for batch in data.train.epoch(1)]
    return Data(Ready(made, data.train.order, data.train.labels), data.val), made


def run_epoch(learner: Learner, data: Data) -> tuple[float, float]:
    """Train an epoch as `train` does; its seconds, and the share of them that batches were waited for."""
    began = time.perf_counter()
    with fast_float32(learner.run.device):
        trained = train_epoch(learner, data, 1, Meter(learner, data.train, silent))
    return time.perf_counter() - began, float(trained["data_wait"])


def run_steps(learner: Learner, made: Iterable[Batch]) -> tuple[float]:
    """Make the bare steps of an epoch, eagerly: forward, backward, optimizer; their seconds."""
    run, model = learner.run, learner.model.train()
    began = time.perf_counter()
    with fast_float32(run.device):
        for batch in made:
            with torch.autocast(run.device.type, run.amp, enabled=run.amp is not None):
                loss = F.cross_entropy(model(batch.images), batch.labels)
            loss.backward()  # type: ignore[no-untyped-call]
            learner.optimizer.step()
            learner.optimizer.zero_grad(set_to_none=True)
        if run.device.type == "cuda":
            torch.cuda.synchronize()
    return (time.perf_counter() - began,)


def epoch_and_steps(data: Path, pairs: int) -> dict[str, Outcome]:
    """Time epochs of small-cnn as `train` runs them, and the same steps on batches that are ready."""
    learner, batches = built(settings(data, arch="small-cnn"))
    _, made = made_ready(learner, batches)
    return alternate({"epoch": lambda: run_epoch(learner, batches), "steps": lambda: run_steps(learner, made)}, pairs)


def trained_epochs(config: TrainConfig) -> list[dict[str, Any]]:
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


@dataclass(frozen=True)
class Ran:
    """A process that ended well: standard output, its seconds, and those after its first line on standard error."""

    text: str
    seconds: float
    after_loading: float


def run(*command: object, stdin: Path | None = None, cwd: Path | None = None) -> Ran:
    """Run a process from shell to shell; it must not print much before it says something on standard error."""
    words = [str(word) for word in command]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    began = time.perf_counter()
    with open(stdin or os.devnull, "rb") as given, subprocess.Popen(words, stdin=given, cwd=cwd, **pipes) as process:
        said = process.stderr.readline() if process.stderr else b""
        loaded = time.perf_counter()
        text, more = process.communicate()
    ended = time.perf_counter()
    if process.returncode:
        last = (said + more).decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"{' '.join(words[1:5])} …: {' '.join(last)}")
    return Ran(text.decode(), ended - began, ended - loaded)


def trained(
    data: Path, arch: str, epochs: int, out: Path, *options: object, device: str = "cpu", before: Iterable[object] = ()
) -> Ran:
    """Run `imgcls train`, by the words `before` if any; its standard output is JSON."""
    asked = ("--data", data, "--arch", arch, "--epochs", epochs, "--out", out, "--overwrite", "--no-pretrained")
    return run(*before, *COMMAND, "train", *asked, "--device", device, "--json", "-", *options)
