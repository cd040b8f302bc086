"""The learning rates a run uses are those of torch's schedulers, and the automatic ones follow their table."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from counting import summarise
from small_runs import Seen, built, run, started, tiny
from torch import nn
from torch.optim import lr_scheduler

from imgcls.engine import train as train_module
from imgcls.engine.learn.optimizers import (
    build_optimizer,
    choose_lr,
    choose_warmup,
    lr_factor,
    plateau_drops,
    restore_optimizer,
)
from imgcls.models.build import build_network

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


def test_plateau_drops_after_three_epochs_without_improvement(
    pictures: Path, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted accuracies; torch's ReduceLROnPlateau waits for one epoch more than its `patience`."""
    hits = iter([1, 3, 3, 2, 3, 4, 4, 4, 4, 4])
    monkeypatch.setattr(
        train_module,
        "_validate",
        lambda *args: summarise(torch.tensor([[h := next(hits), 5 - h], [0, 5]]).numpy(), 1.0, 10, ("a", "b"), "val"),
    )
    asked = {"schedule": "plateau", "warmup_epochs": 0, "lr": PEAK, "epochs": 10, "limit": 8}
    run(tiny(pictures, **asked, out=str(tmp_path / "run")))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=PEAK)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.1, patience=2, threshold=0)
    rates = []
    for value in [1, 3, 3, 2, 3, 4, 4, 4, 4, 4]:
        rates.append(optimizer.param_groups[0]["lr"])
        theirs.step(value)
    assert seen.lrs == pytest.approx(rates)
    assert seen.lrs[0] > seen.lrs[-1]


def test_plateaus_are_counted_anew_after_each() -> None:
    drops = {count: plateau_drops([(5.0, 0.0)] * count) for count in (0, 3, 4, 6, 7)}
    assert drops == {0: 0, 3: 0, 4: 1, 6: 1, 7: 2}
    assert plateau_drops([(float(score), 0.0) for score in range(6)]) == 0
    assert plateau_drops([(5.0, -1 / epoch) for epoch in range(1, 7)]) == 0, "a smaller loss is an improvement"


def test_plateaus_are_met_after_the_warm_up_only(
    pictures: Path, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is learnt while the rate is still low; it is not lowered before it was reached."""
    same = summarise(torch.tensor([[5, 0], [5, 0]]).numpy(), 1.0, 10, ("a", "b"), "val")
    monkeypatch.setattr(train_module, "_validate", lambda *args: same)
    asked = {"schedule": "plateau", "warmup_epochs": 5, "lr": PEAK, "epochs": 10, "limit": 8}
    run(tiny(pictures, **asked, out=str(tmp_path / "run")))
    assert seen.lrs[5:] == pytest.approx([PEAK] * 4 + [PEAK / 10])


def test_warm_up(pictures: Path, tmp_path: Path, seen: Seen) -> None:
    """A straight line up, then the cosine over the steps that are left."""
    asked = {"lr": PEAK, "epochs": 4, "warmup_epochs": 1.5}  # 1.5 epochs of 3 steps: 4 steps
    run(tiny(pictures, **asked, out=str(tmp_path / "run")))
    assert seen.lrs[:4] == pytest.approx([PEAK / 5, 2 * PEAK / 5, 3 * PEAK / 5, 4 * PEAK / 5])
    assert seen.lrs[4:] == pytest.approx(torchs(lr_scheduler.CosineAnnealingLR, 8, T_max=8))


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
        assert max(lr_factor(schedule, step, total, steps) for step in range(total)) == 1, (steps, total)


def test_a_warm_up_that_rounding_makes_as_long_as_the_run_is_said() -> None:
    choice = choose_warmup(tiny(".", epochs=3, warmup_epochs=2.9), 2)
    assert (choice.value, choice.reason) == (5, "as asked, but for the last step")
    assert choose_warmup(tiny(".", epochs=3, warmup_epochs=2.5), 2).reason == "as asked"


@pytest.mark.parametrize("total", [1, 2, 3, 4, 10, 977])
def test_one_cycle_has_torchs_shape_at_any_length(total: int) -> None:
    rates = [PEAK * lr_factor("onecycle", step, total, 0) for step in range(total)]
    if total >= 4:  # below, torch's own divides by zero or has no rise
        theirs = torchs(lr_scheduler.OneCycleLR, total - 1, max_lr=PEAK, total_steps=total, cycle_momentum=False)
        assert rates[:-1] == pytest.approx(theirs)
    assert all(math.isfinite(rate) and 0 < rate <= PEAK for rate in rates)


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "step", "plateau", "constant"])
@pytest.mark.parametrize("total", [1, 2, 100])
def test_every_step_learns_something(schedule: str, total: int) -> None:
    assert all(lr_factor(schedule, step, total, total // 20) > 0 for step in range(total))


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


def test_frozen_parameters_are_not_decayed(pictures: Path) -> None:
    state, _ = built(tiny(pictures, freeze_epochs="all"))
    optimizer = build_optimizer(tiny(".", weight_decay=0.5), state.model.network, 0.1)
    before = [parameter.detach().clone() for parameter in state.model.parameters()]
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))


@pytest.mark.parametrize(("asked", "moved"), [({}, [1.0, 1.9]), ({"nesterov": True}, [1.9, 2.71])])
def test_nesterov_looks_ahead(asked: dict[str, Any], moved: list[float]) -> None:
    """With a gradient of 1 and a momentum of 0.9, the first steps are longer by what the next would add."""
    network = nn.Linear(1, 1, bias=False)
    optimizer = build_optimizer(tiny(".", optimizer="sgd", weight_decay=0.0, **asked), network, 1.0)
    for length in moved:
        before = network.weight.item()
        network.weight.grad = torch.ones(1, 1)
        optimizer.step()
        assert before - network.weight.item() == pytest.approx(length, abs=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_restored_optimizer_keeps_its_own_kernels_and_memory_format(name: Any) -> None:
    """A run saved with fused kernels and channels last goes on without them."""
    torch.manual_seed(0)
    saved, restored = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    restored.load_state_dict(saved.state_dict())
    saved.to(memory_format=torch.channels_last)
    config = tiny(".", optimizer=name)
    before, after = build_optimizer(config, saved, 0.1), build_optimizer(config, restored, 0.1)

    def step(network: nn.Conv2d, optimizer: torch.optim.Optimizer) -> None:
        for parameter in network.parameters():
            parameter.grad = torch.arange(parameter.numel()).reshape(parameter.shape).float()
        optimizer.step()

    step(saved, before)
    restored.load_state_dict(saved.state_dict())
    state = copy.deepcopy(before.state_dict())
    state["param_groups"][0]["fused"] = True
    restore_optimizer(after, state)
    assert not after.param_groups[0]["fused"]
    for values in after.state.values():
        assert all(value.is_contiguous() for value in values.values() if value is not None)
    step(saved, before)
    step(restored, after)
    assert torch.equal(saved.weight, restored.weight)
