"""Optimizers: what they move, and how one is restored that another device or memory format saved."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import built, tiny
from torch import nn

from imgcls.engine.learn.optimizers import build_optimizer, restore_optimizer

pytest_plugins = ("small_runs",)


def test_frozen_parameters_are_not_decayed(pictures: Path) -> None:
    b = built(tiny(pictures, freeze_epochs="all"))
    optimizer = build_optimizer(tiny(".", weight_decay=0.5), b.model.network, 0.1)
    before = [parameter.detach().clone() for parameter in b.model.parameters()]
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, b.model.parameters(), strict=True))


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
