"""The learning rates that a run uses are those of torch's schedulers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from carrying import shows
from counting import summarise
from small_runs import Seen, planted, run, tiny
from torch import nn
from torch.optim import lr_scheduler

from imgcls.engine.learn.schedules import Schedule, plateau_drops

pytest_plugins = ("small_runs",)

PEAK = 0.02


def torchs(scheduler: type[Any], steps: int, **options: Any) -> list[float]:
    """Return the learning rates of a torch scheduler."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule = scheduler(optimizer, **options)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@shows("train", "schedule")
def test_the_learning_rates_of_a_run(pictures: Path, tmp_path: Path, seen: Seen) -> None:
    """What the optimizer used in each of 12 steps (4 epochs of 3), for each schedule."""
    expected = {
        "constant": [PEAK] * 12,
        "step": torchs(lr_scheduler.MultiStepLR, 12, milestones=[6, 9], gamma=0.1),
        "cosine": torchs(lr_scheduler.CosineAnnealingLR, 12, T_max=12),
        "onecycle": torchs(lr_scheduler.OneCycleLR, 12, max_lr=PEAK, total_steps=12, cycle_momentum=False),
    }
    for schedule, rates in expected.items():
        seen.lrs.clear()
        warmup = {} if schedule == "onecycle" else {"warmup_epochs": 0}
        done = run(tiny(pictures, schedule=schedule, lr=PEAK, epochs=4, out=str(tmp_path / schedule), **warmup))
        assert seen.lrs == pytest.approx(rates, rel=1e-9), schedule
        assert [row["lr"] for row in done.history] == pytest.approx(rates[2::3])


def test_plateau_drops_after_three_epochs_without_improvement(pictures: Path, tmp_path: Path, seen: Seen) -> None:
    """Planted accuracies; torch's ReduceLROnPlateau waits for one epoch more than its `patience`."""
    accuracies = [1, 3, 3, 2, 3, 4, 4, 4, 4, 4]
    reports = [
        summarise(torch.tensor([[hits, 5 - hits], [0, 5]]).numpy(), 1.0, 10, ("a", "b"), "val") for hits in accuracies
    ]
    asked = {"schedule": "plateau", "warmup_epochs": 0, "lr": PEAK, "epochs": 10, "limit": 8}
    run(tiny(pictures, **asked, out=str(tmp_path / "run")), validate=planted(*reports))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=PEAK)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.1, patience=2, threshold=0)
    rates = []
    for value in accuracies:
        rates.append(optimizer.param_groups[0]["lr"])
        theirs.step(value)
    assert seen.lrs == pytest.approx(rates)
    assert seen.lrs[0] > seen.lrs[-1]


def test_plateaus_are_counted_anew_after_each() -> None:
    drops = {count: plateau_drops([(5.0, 0.0)] * count) for count in (0, 3, 4, 6, 7)}
    assert drops == {0: 0, 3: 0, 4: 1, 6: 1, 7: 2}
    assert plateau_drops([(float(score), 0.0) for score in range(6)]) == 0
    assert plateau_drops([(5.0, -1 / epoch) for epoch in range(1, 7)]) == 0, "a smaller loss is an improvement"


def test_plateaus_are_met_after_the_warm_up_only(pictures: Path, tmp_path: Path, seen: Seen) -> None:
    """Nothing is learnt while the rate is still low; it is not lowered before it was reached."""
    same = summarise(torch.tensor([[5, 0], [5, 0]]).numpy(), 1.0, 10, ("a", "b"), "val")
    asked = {"schedule": "plateau", "warmup_epochs": 5, "lr": PEAK, "epochs": 10, "limit": 8}
    run(tiny(pictures, **asked, out=str(tmp_path / "run")), validate=planted(*[same] * 10))
    assert seen.lrs[5:] == pytest.approx([PEAK] * 4 + [PEAK / 10])


@shows("train", "warmup_epochs")
def test_warm_up(pictures: Path, tmp_path: Path, seen: Seen) -> None:
    """A straight line up, then the cosine over the steps that are left."""
    asked = {"lr": PEAK, "epochs": 4, "warmup_epochs": 1.5}  # 1.5 epochs of 3 steps: 4 steps
    run(tiny(pictures, **asked, out=str(tmp_path / "run")))
    assert seen.lrs[:4] == pytest.approx([PEAK / 5, 2 * PEAK / 5, 3 * PEAK / 5, 4 * PEAK / 5])
    assert seen.lrs[4:] == pytest.approx(torchs(lr_scheduler.CosineAnnealingLR, 8, T_max=8))


@pytest.mark.parametrize("total", [1, 2, 3, 4, 10, 977])
def test_one_cycle_has_torchs_shape_at_any_length(total: int) -> None:
    rates = [Schedule("onecycle", PEAK, total, 0).lr(step) for step in range(total)]
    if total >= 4:  # below, torch's own divides by zero or has no rise
        theirs = torchs(lr_scheduler.OneCycleLR, total - 1, max_lr=PEAK, total_steps=total, cycle_momentum=False)
        assert rates[:-1] == pytest.approx(theirs)
    assert all(math.isfinite(rate) and 0 < rate <= PEAK for rate in rates)


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "step", "plateau", "constant"])
@pytest.mark.parametrize("total", [1, 2, 100])
def test_every_step_learns_something(schedule: str, total: int) -> None:
    assert all(Schedule(schedule, PEAK, total, total // 20).lr(step) > 0 for step in range(total))
