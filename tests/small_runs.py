"""What the engine's tests share: tiny drawn data sets, settings for tiny runs, and eyes on what a run does.

A plugin and not a conftest.py, because two of that name cannot be told apart (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook

from imgcls import checkpoint, plots
from imgcls.checkpoint import Checkpoint
from imgcls.config import TrainConfig
from imgcls.data.batch import Data
from imgcls.distributed import World
from imgcls.engine.decide.build import build, choose_compute
from imgcls.engine.decide.inputs import decide_inputs
from imgcls.engine.learn.epoch import train_epoch
from imgcls.engine.learn.learner import Learner
from imgcls.engine.learn.meter import Meter
from imgcls.engine.run.run import Run as TrainRun
from imgcls.engine.train import Validate, train, validate_epoch
from imgcls.events import EpochEnded, Event, Finished, Found, Report, Said, Started, Stepped, silent
from imgcls.models.classifier import Classifier
from imgcls.report import EvalReport
from imgcls.settings import from_dict

COLOURS = {"blue": (70, 90, 160), "green": (90, 150, 80), "red": (160, 80, 80)}
Kind = TypeVar("Kind")
Tensors = dict[str, torch.Tensor]


def draw(root: Path, layout: dict[str, int], side: int = 16, noise: float = 40, seed: int = 0) -> Path:
    """Write noisy pictures of their class's colour: {"train/red": 3, ...}; returns `root`."""
    generator = np.random.default_rng(seed)
    for folder, count in layout.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            colour = np.array(COLOURS.get(Path(folder).name, (128, 128, 128)))
            pixels = (colour + generator.normal(0, noise, (side, side, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number:03d}.png")
    return root


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours, 16 px: 8 training and 4 validation images of each."""
    layout = {f"{split}/{name}": count for split, count in (("train", 8), ("val", 4)) for name in COLOURS}
    return draw(tmp_path_factory.mktemp("pictures"), layout)


@pytest.fixture(scope="session")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven training images, five red and two blue, 16 px; five for validation."""
    layout = {"train/blue": 2, "train/red": 5, "val/blue": 2, "val/red": 3}
    return draw(tmp_path_factory.mktemp("seven"), layout)


def tiny(data: Path | str, **asked: Any) -> TrainConfig:
    """Return settings by the names of the flags: one epoch of the smallest network on the CPU, nothing random."""
    defaults = {"arch": "simple-cnn", "epochs": 1, "batch_size": 8, "workers": 0, "augment": "none", "device": "cpu"}
    return from_dict(TrainConfig, defaults | {"data": str(data)} | asked)


@dataclass
class Built:
    """A run put together, ready to learn."""

    run: TrainRun
    model: Classifier
    data: Data
    learner: Learner

    def train(
        self, epoch: int = 1, report: Report = silent, within: dict[str, Any] | None = None, steps: int = 2**62
    ) -> dict[str, Any]:
        """Train one epoch, or what is left of it, or only so many steps, and return its figures."""
        meter = Meter(self.learner, self.data.train, report, within)
        measured = train_epoch(self.learner, self.data, epoch, meter, stop=lambda: meter.steps >= steps)
        return measured | {"within": meter.state_dict()}


def built(config: TrainConfig, last: Checkpoint | None = None, kind: type[Learner] = Learner) -> Built:
    """Put a run together as `train` does, or as it goes on from `last`."""
    run, model, data, _ = build(config, choose_compute(config, World()), decide_inputs(config, last), last)
    learner = kind(run, model)
    if last is not None:
        learner.load_state_dict(last.training)
    return Built(run, model, data, learner)


def weighted(logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Sum over the images: the cross-entropy with the smoothed target, times the weight of the image's own label."""
    classes = logits.shape[1]
    targets = (1 - smoothing) * F.one_hot(labels, classes) + smoothing / classes
    return (weight[labels] * -(targets * logits.log_softmax(1)).sum(1)).sum()


class Still(Learner):
    """Learns nothing, so that what is measured is of the weights that it began with."""

    def update(self) -> torch.Tensor:
        """Keep the weights."""
        return torch.zeros(())


@dataclass
class Run:
    """A training that ended, and everything it said."""

    finished: Finished
    events: list[Event]

    @property
    def folder(self) -> Path:
        assert self.finished.out is not None
        return Path(self.finished.out)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @property
    def epochs(self) -> list[dict[str, Any]]:
        return [event.metrics for event in of(self.events, EpochEnded)]

    def weights(self, name: str = "last.pt") -> Tensors:
        return checkpoint.load(self.folder / name).model


def run(
    config: TrainConfig,
    also: Callable[[Event], None] = lambda event: None,
    curves: bool = False,
    validate: Validate = validate_epoch,
) -> Run:
    """Train, keep the events, and show each to `also`; the curves are drawn (for half a second) only if asked."""
    events: list[Event] = []

    def report(event: Event) -> None:
        events.append(event)
        also(event)

    with pytest.MonkeyPatch.context() as patch:
        if not curves:
            patch.setattr(plots, "curves", lambda history, best: None)
            patch.setattr(plots, "save", lambda figure, path: path.touch())
        return Run(train(config, report, validate), events)


def of(events: list[Event], kind: type[Kind]) -> list[Kind]:
    """Return the events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def codes(events: list[Event]) -> set[str]:
    """Return the codes of the findings."""
    return {event.finding.code for event in of(events, Found)}


def warnings(events: list[Event]) -> list[str]:
    """Return the sentences said as warnings."""
    return [event.text for event in of(events, Said) if event.warning]


def started(events: list[Event]) -> Started:
    """Return the header."""
    (event,) = of(events, Started)
    return event


def same(first: Tensors, second: Tensors) -> bool:
    """Tell whether two state dicts are equal bit by bit."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def close(first: Tensors, second: Tensors, tolerance: float) -> bool:
    """Tell whether two state dicts are equal to within `tolerance`."""
    return all(torch.allclose(first[key], second[key], atol=tolerance, rtol=0) for key in first)


def planted(*reports: EvalReport | None) -> Validate:
    """Return a validation that gives these reports, epoch by epoch."""
    return lambda learner, data, report, watched: reports[learner.epoch - 1]


class Killed(BaseException):
    """The process is gone: raised from a report to end a run in the middle."""


def kill_in(epoch: int) -> Callable[[Event], None]:
    """Return a report that kills the run in the middle of an epoch."""

    def report(event: Event) -> None:
        if isinstance(event, Stepped) and event.epoch == epoch and event.phase == "train":
            raise Killed

    return report


@dataclass
class Seen:
    """What the network was fed and what the optimizer did."""

    train: list[torch.Tensor] = field(default_factory=list)
    val: list[torch.Tensor] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)  # as the optimizer used them, one per step
    norms: list[float] = field(default_factory=list)  # of the gradient, when the optimizer used it


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Look over the shoulder of the network and of the optimizer."""
    eyes, forward = Seen(), Classifier.forward

    def watched_forward(model: Classifier, images: torch.Tensor) -> torch.Tensor:
        (eyes.train if model.training else eyes.val).append(images.detach().clone())
        return forward(model, images)

    def look(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        (group,) = optimizer.param_groups
        eyes.lrs.append(group["lr"])
        squares = [float(p.grad.square().sum()) for p in group["params"] if p.grad is not None]
        eyes.norms.append(sum(squares) ** 0.5)

    monkeypatch.setattr(Classifier, "forward", watched_forward)
    handle = register_optimizer_step_pre_hook(look)
    yield eyes
    handle.remove()
