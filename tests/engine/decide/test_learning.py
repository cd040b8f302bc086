"""The automatic learning rates and warm-ups follow their table."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from small_runs import Seen, run, started, tiny

from imgcls.engine.decide.learning import choose_lr, choose_warmup
from imgcls.engine.learn.schedules import Schedule
from imgcls.models.classifier import build_network

pytest_plugins = ("small_runs",)


def test_the_automatic_warm_up_is_5_percent_of_the_steps_and_5_epochs_at_most() -> None:
    lengths = {epochs: choose_warmup(tiny(".", epochs=epochs), 100).value for epochs in (1, 20, 100, 400)}
    assert lengths == {1: 5, 20: 100, 100: 500, 400: 500}
    assert choose_warmup(tiny(".", schedule="onecycle"), 100).value == 0


@pytest.mark.parametrize("schedule", ["cosine", "step", "plateau", "constant"])
def test_every_warm_up_leaves_a_step_at_the_full_rate(schedule: str) -> None:
    """Whatever the length of run and warm-up; what is longer is refused, see test_config.py."""
    shares = [None, 0.3, 0.499, *([] if schedule == "step" else [0.96, 0.999])]
    for steps_per_epoch, epochs, share in itertools.product((1, 2, 3, 100), (1, 2, 5, 40), shares):
        warmup = "auto" if share is None else share * epochs
        config = tiny(".", schedule=schedule, epochs=epochs, warmup_epochs=warmup)
        steps, total = int(choose_warmup(config, steps_per_epoch).value), epochs * steps_per_epoch
        assert max(Schedule(schedule, 1.0, total, steps).lr(step) for step in range(total)) == 1, (steps, total)


def test_a_warm_up_that_rounding_makes_as_long_as_the_run_is_said() -> None:
    choice = choose_warmup(tiny(".", epochs=3, warmup_epochs=2.9), 2)
    assert (choice.value, choice.reason) == (5, "as asked, but for the last step")
    assert choose_warmup(tiny(".", epochs=3, warmup_epochs=2.5), 2).reason == "as asked"


LR = [  # architecture, starting from weights, settings, base, how it grows with the batch
    ("bn-cnn", False, {"optimizer": "adamw"}, 3e-4, math.sqrt),
    ("bn-cnn", True, {"optimizer": "adam"}, 3e-4, math.sqrt),
    ("swin_t", False, {"optimizer": "adamw"}, 3e-4, math.sqrt),
    ("swin_t", True, {"optimizer": "adamw"}, 1e-4, math.sqrt),
    ("convnext_tiny", True, {"optimizer": "adam"}, 1e-4, math.sqrt),
    ("vit_b_32", True, {"optimizer": "adamw"}, 1e-4, math.sqrt),
    ("bn-cnn", False, {"optimizer": "sgd"}, 0.1, float),
    ("bn-cnn", True, {"optimizer": "sgd"}, 0.01, float),
    ("small-cnn", False, {"optimizer": "sgd"}, 0.01, float),  # has no BatchNorm
]


@pytest.mark.parametrize(("arch", "fine_tuning", "asked", "base", "grows"), LR)
def test_the_automatic_learning_rate(
    arch: str, fine_tuning: bool, asked: dict[str, Any], base: float, grows: Any
) -> None:
    network = build_network(arch if "cnn" in arch else "bn-cnn", 2, 32)
    for batch in (64, 256):
        choice = choose_lr(tiny(".", arch=arch, **asked), network, fine_tuning, batch)
        assert choice.value == pytest.approx(base * grows(batch / 64))
        assert f"{batch}/64" in choice.reason


def test_the_automatic_learning_rate_is_used_and_printed(pictures: Path, seen: Seen) -> None:
    asked = {"batch_size": 4, "accumulate": 3, "schedule": "constant", "warmup_epochs": 0, "dry_run": True}
    event = started(run(tiny(pictures, **asked)).events)
    assert seen.lrs == pytest.approx([3e-4 * math.sqrt(12 / 64)] * 2)
    (choice,) = [choice for choice in event.choices if choice.name == "lr"]
    assert choice.value == pytest.approx(seen.lrs[0])
    assert "4 x 3 x 1 = 12" in event.recipe


@pytest.mark.parametrize("asked", [{"batch_size": 8, "accumulate": 1000}, {"batch_size": 8192}], ids=str)
def test_the_automatic_learning_rate_follows_no_batch_that_never_occurs(
    pictures: Path, seen: Seen, asked: dict[str, Any]
) -> None:
    """24 images are one step, whatever was asked for; and the header says so."""
    constant = {"schedule": "constant", "warmup_epochs": 0, "optimizer": "sgd", "dry_run": True}
    event = started(run(tiny(pictures, **asked, **constant)).events)
    assert seen.lrs == pytest.approx([0.01 * 24 / 64])
    (choice,) = [choice for choice in event.choices if choice.name == "lr"]
    assert choice.reason == "SGD, fine-tuning or no BatchNorm: 0.01 x 24/64"
    assert choice.shown == "0.00375"
    batches = math.prod(asked.values())
    assert f" = {batches}, but there are 24 images: one step per epoch, " in event.recipe
    seen.lrs.clear()
    run(tiny(pictures, **asked, **constant, limit=10))
    assert seen.lrs == pytest.approx([0.01 * 10 / 64])
