"""What is said of an epoch is what happened in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Still, built, of, tiny, weighted

from imgcls.data.batch import Batch
from imgcls.distributed import World
from imgcls.engine.learn.epoch import train_epoch
from imgcls.engine.learn.learner import Learner
from imgcls.engine.learn.meter import Meter, _duration
from imgcls.engine.learn.window import Window, windows
from imgcls.errors import DivergedError, Exit
from imgcls.events import Event, Said, Stepped, silent

pytest_plugins = ("small_runs",)


def test_training_loss_and_accuracy_are_those_of_the_images(seven: Path) -> None:
    """With the weights held still, they equal torch's over all images at once."""
    config = tiny(seven, batch_size=2, accumulate=2, class_weights="balanced", label_smoothing=0.1)
    b = built(config, kind=Still)
    stepped: list[Event] = []
    measured = b.train(1, stepped.append)
    batches = list(b.data.train.epoch(1))
    images, labels = (torch.cat([getattr(batch, part) for batch in batches]) for part in ("images", "labels"))
    logits = b.model(images)
    expected = weighted(logits, labels, b.run.task.weights, 0.1) / b.run.task.weights[labels].sum()
    assert measured["train_loss"] == pytest.approx(expected.item(), abs=1e-6)
    assert measured["train_acc"] == (logits.argmax(1) == labels).double().mean().item()
    assert of(stepped, Stepped)[-1].loss == pytest.approx(expected.item(), abs=1e-6)


def test_the_expected_time_is_said_after_20_steps_on_a_cpu(pictures: Path) -> None:
    events: list[Event] = []
    b = built(tiny(pictures, batch_size=1))
    b.train(1, events.append)
    assert [event.text.rstrip("0123456789 s") for event in of(events, Said)] == ["expected time on this CPU:"]
    b.train(2, events.append)
    assert len(of(events, Said)) == 1
    dry = built(tiny(pictures, batch_size=1, dry_run=True))
    dry.train(1, events.append)
    assert len(of(events, Said)) == 1, "its two steps are no epoch"


def test_an_epoch_entered_in_the_middle_is_not_taken_for_a_fast_one(pictures: Path) -> None:
    """By a clock that goes on 1 s for each step; 24 steps, of which the meter sees the last 20."""
    now = [0.0]

    class Slow(Still):
        def update(self) -> torch.Tensor:
            now[0] += 1
            return super().update()

    b = built(tiny(pictures, batch_size=1), kind=Slow)
    within = b.train(1, steps=4)["within"]
    events: list[Event] = []
    now[0] = 0
    meter = Meter(b.learner, b.data.train, events.append, within, clock=lambda: now[0])
    train_epoch(b.learner, b.data, 1, meter)
    assert [event.text for event in of(events, Said)] == ["expected time on this CPU: 24 s"]


@pytest.mark.parametrize(("seconds", "words"), [(9, "9 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_are_said_in_fitting_units(seconds: float, words: str) -> None:
    assert _duration(seconds) == words


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_steps(pictures: Path) -> None:
    config = tiny(pictures, optimizer="sgd", lr=1e30, schedule="constant", warmup_epochs=0)
    b = built(config)
    with pytest.raises(DivergedError, match=r"epoch 1, step \d: the loss or its gradient became .*; lower --lr"):
        b.train(1)
    with pytest.raises(DivergedError) as caught:
        b.train(2)
    assert caught.value.exit_code == Exit.DIVERGED
    assert "set --clip-grad 1" in str(caught.value)
    assert "--no-amp" not in str(caught.value)


def test_the_step_that_is_named_is_the_first_and_its_images_are_those_of_the_order(pictures: Path) -> None:
    """Where nothing was read from the device for three steps."""

    class Broken(Still):
        def update(self) -> torch.Tensor:
            return super().update() + (float("inf") if self.step >= 1 else 0)

    b = built(tiny(pictures, batch_size=4, accumulate=2), kind=Broken)
    seen: list[list[str]] = []

    def count(learner: Learner, window: Window) -> torch.Tensor:
        figures = Learner.learn(learner, window)
        learner.step += 1
        return figures

    b.learner.begin(1)
    meter = Meter(b.learner, b.data.train, silent)
    for window in windows(b.run, b.data.train, 1):
        meter.add(window, count(b.learner, window))
        first, end = (b.data.train.order.bounds[number] for number in (window.start, window.end))
        indices = b.data.train.order.of(1)[first:end]
        seen.append([b.run.inputs.splits.train.images.path(int(index)) for index in indices])
    with pytest.raises(DivergedError, match="epoch 1, step 2: the loss or its gradient") as caught:
        meter.check()
    assert (caught.value.step, list(caught.value.images)) == (2, seen[1])
    assert len(seen[1]) == 8


def test_a_few_steps_that_fp16_leaves_out_are_normal_and_twenty_in_a_row_are_not(pictures: Path) -> None:
    b = built(tiny(pictures, batch_size=1))
    b.learner.scaler = torch.amp.GradScaler("cpu")
    for skipped, fine in ((19, True), (20, False)):
        meter = Meter(b.learner, b.data.train, silent)
        b.learner.step = 0
        for step, window in enumerate(windows(b.run, b.data.train, 1)):
            b.learner.step += 1
            meter.add(window, torch.tensor([1.0, 1.0, float("nan") if 1 <= step <= skipped else 1.0]))
        meter.read()
        assert meter.is_finite is fine


def test_a_loss_of_another_process_that_is_not_finite_stops_this_one_too(pictures: Path) -> None:
    """A process that raised before the others know would leave them waiting."""

    class Beside(World):
        def most(self, values: torch.Tensor) -> torch.Tensor:
            return torch.maximum(values, torch.tensor([-2]))  # the other's second step

    b = built(tiny(pictures))
    b.learner.run = replace(b.run, world=Beside())
    with pytest.raises(DivergedError, match="epoch 1, step 2: the loss or its gradient became NaN or infinite"):
        b.train(1)


def test_the_wait_for_batches_is_counted(pictures: Path) -> None:
    """By a clock that goes on 3 s for each of three batches, and 1 s for each step."""
    now = [0.0]

    def passing(seconds: float) -> None:
        now[0] += seconds

    class SlowLoader:
        def __init__(self, loader: Any) -> None:
            self.order, self.labels, self.nbytes, self._loader = loader.order, loader.labels, 0, loader

        def __len__(self) -> int:
            return len(self.order)

        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            for batch in self._loader.epoch(epoch, start):
                passing(3)
                yield batch

    class Slow(Still):
        def update(self) -> torch.Tensor:
            passing(1)
            return super().update()

    b = built(tiny(pictures), kind=Slow)
    meter = Meter(b.learner, b.data.train, silent, clock=lambda: now[0])
    for window in windows(b.run, SlowLoader(b.data.train), 1, clock=meter.clock):
        meter.add(window, b.learner.learn(window))
    measured = meter.epoch()
    assert measured["data_wait"] == pytest.approx(9 / 12)
    assert measured["images_per_second"] == pytest.approx(24 / 12)
