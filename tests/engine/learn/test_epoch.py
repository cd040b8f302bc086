"""The loop does what a loop written by hand does; windows, freezing and averaging change nothing they should not."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from carrying import shows
from small_runs import Built, Tensors, built, close, run, tiny, weighted
from torch import nn

from imgcls.checkpoint import Checkpoint
from imgcls.data.sample import SHAPES, picture
from imgcls.engine.assess.validate import validate
from imgcls.engine.learn.epoch import start_statistics

pytest_plugins = ("small_runs",)


# One run, written by hand ---------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


def by_hand(data: Path, asked: dict[str, Any]) -> Tensors:
    """Train two epochs at a constant learning rate with nothing but torch, and return the weights."""
    b = built(tiny(data, **asked))
    network, options = b.model, {"lr": asked["lr"], "weight_decay": asked.get("weight_decay", 1e-4)}
    if asked["optimizer"] == "sgd":
        options |= {"momentum": asked.get("momentum", 0.9), "nesterov": asked.get("nesterov", False)}
    optimizer = OPTIMIZERS[asked["optimizer"]](network.parameters(), **options)
    weight, smoothing = torch.ones(2), asked.get("label_smoothing", 0.0)
    if asked.get("class_weights") == "balanced":
        weight = torch.tensor([7 / (2 * 2), 7 / (2 * 5)])  # two blue and five red images, see `seven`
    for epoch in (1, 2):
        for batch in b.data.train.epoch(epoch):
            loss = weighted(network(batch.images), batch.labels, weight, smoothing) / weight[batch.labels].sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            if "clip_grad" in asked:
                nn.utils.clip_grad_norm_(network.parameters(), asked["clip_grad"])
            optimizer.step()
    return network.network.state_dict()


@pytest.mark.parametrize(
    "asked",
    [
        {"optimizer": "sgd", "lr": 0.05},
        {"optimizer": "sgd", "lr": 0.02, "momentum": 0.0},
        {"optimizer": "sgd", "lr": 0.05, "momentum": 0.5, "weight_decay": 0.1},
        {"optimizer": "sgd", "lr": 0.05, "nesterov": True},
        {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.1},
        {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1},
        {"optimizer": "sgd", "lr": 0.05, "label_smoothing": 0.3},
        {"optimizer": "sgd", "lr": 0.05, "class_weights": "balanced"},
        {"optimizer": "sgd", "lr": 0.05, "class_weights": "balanced", "label_smoothing": 0.3},
        {"optimizer": "sgd", "lr": 0.05, "clip_grad": 0.1},
    ],
    ids=str,
)
@shows(
    "train", "optimizer", "lr", "momentum", "nesterov", "weight_decay", "label_smoothing", "class_weights", "clip_grad"
)
def test_a_run_equals_a_loop_written_by_hand(seven: Path, tmp_path: Path, asked: dict[str, Any]) -> None:
    constant = {"schedule": "constant", "warmup_epochs": 0, "batch_size": 4, "epochs": 2}
    ours = run(tiny(seven, **asked, **constant, out=str(tmp_path / "run"))).weights()
    assert close(ours, by_hand(seven, asked | constant), 1e-6)
    plain = by_hand(seven, {"optimizer": "sgd", "lr": 0.03} | constant)
    assert not close(ours, plain, 1e-4), "the tolerance would let another recipe pass"


# Entered in the middle ------------------------------------------------------------------------------------------------

SIX: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulation with a short last window": {"batch_size": 2, "accumulate": 2},
    "accumulation, clipping and averaging": {"batch_size": 3, "accumulate": 2, "clip_grad": 0.1, "ema": True},
    "mixup and dropout": {"arch": "bn-cnn", "mixup": 0.4, "dropout": 0.3},
    "cutmix, class weights and smoothing": {"cutmix": 1.0, "class_weights": "balanced", "label_smoothing": 0.1},
    "strong augmentation, BatchNorm and dropout": {"arch": "bn-cnn", "augment": "strong", "dropout": 0.2},
}


@pytest.mark.parametrize("asked", SIX.values(), ids=SIX)
def test_an_epoch_goes_on_from_any_step_bit_by_bit(seven: Path, tmp_path: Path, asked: dict[str, Any]) -> None:
    """Stopped after the first step of each of two epochs, built anew, restored and continued."""
    config = tiny(seven, **{"batch_size": 3, "epochs": 2, "optimizer": "sgd", "lr": 0.05} | asked)
    straight, parts = built(config), built(config)
    for epoch in (1, 2):
        measured = straight.train(epoch)
        first = parts.learner.step
        within = parts.train(epoch, steps=1)["within"]
        assert parts.learner.step == first + 1
        parts = built(config, after(parts))
        figures = parts.train(epoch, within=within)
        assert all(figures[name] == measured[name] for name in ("train_loss", "train_acc"))
    assert parts.learner.step == straight.learner.step > 2
    for one, other in zip(everything(straight), everything(parts), strict=True):
        assert torch.equal(one, other)


def after(b: Built) -> Checkpoint:
    """Return what last.pt would hold."""
    model = {key: value.clone() for key, value in b.learner.validated.network.state_dict().items()}
    return Checkpoint(b.run.card, model, b.run.inputs.splits.holdout, copy.deepcopy(b.learner.state_dict()))


def everything(b: Built) -> list[torch.Tensor]:
    """Return weights, averages, statistics and the optimizer's memory."""
    states = [b.model.state_dict(), b.learner.validated.state_dict()]
    memory = [values for state in b.learner.optimizer.state.values() for values in state.values()]
    return [*(tensor for state in states for tensor in state.values()), *memory]


# What is measured -----------------------------------------------------------------------------------------------------


def test_one_batch_is_overfitted(pictures: Path) -> None:
    b = built(tiny(pictures, limit=8, lr=3e-3, schedule="constant", warmup_epochs=0, epochs=40))
    measured = [b.train(epoch) for epoch in range(1, 41)]
    assert measured[-1]["train_acc"] == 1.0
    assert measured[-1]["train_loss"] < 0.2 * measured[0]["train_loss"]


# BatchNorm ------------------------------------------------------------------------------------------------------------


def copied(b: Built) -> Tensors:
    return {key: value.clone() for key, value in b.model.network.state_dict().items()}


def test_a_fresh_networks_statistics_begin_with_those_of_the_first_batch(pictures: Path) -> None:
    b = built(tiny(pictures, arch="bn-cnn"))
    before = copied(b)
    convolution, norm = b.model.network[0], b.model.network[1]  # type: ignore[index]
    with torch.no_grad():
        outputs = convolution(b.model.normalize(next(b.data.train.epoch(1)).images))
    start_statistics(b.model, b.data.train.epoch(1), b.run.device)
    torch.testing.assert_close(norm.running_mean, outputs.mean((0, 2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(norm.running_var, outputs.var((0, 2, 3)), atol=1e-5, rtol=1e-4)
    assert norm.momentum == 0.1
    after = copied(b)
    assert {key.split(".")[1] for key in after if not torch.equal(before[key], after[key])} == {
        *("running_mean", "running_var", "num_batches_tracked")
    }


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw 40 of each of `sample-data`'s five shapes, for training; the same pictures are there for validation."""
    root, generator = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for shape in SHAPES:
        (root / "train" / shape).mkdir(parents=True)
        for number in range(40):
            picture(shape, generator).save(root / "train" / shape / f"{number}.png")
    shutil.copytree(root / "train", root / "val")
    return root


@pytest.mark.parametrize(
    ("arch", "size"),
    [
        *(("bn-cnn", 16), ("resnet9-half", 16), ("densenet121", 32), ("efficientnet_b0", 32), ("googlenet", 32)),
        *(("mnasnet0_5", 32), ("mobilenet_v2", 32), ("mobilenet_v3_small", 32), ("regnet_x_400mf", 32)),
        *(("regnet_y_400mf", 32), ("resnet18", 32), ("shufflenet_v2_x0_5", 32)),
    ],
)
def test_every_network_validates_as_it_trains(shapes: Path, arch: str, size: int) -> None:
    """After 25 steps, on the training images: what a few pictures teach about others is not asked here.

    One of each family with BatchNorm, for 1 to 8 s each: statistics come in by training only. The larger ones have the
    same momentum and heads; tests/models look at all.
    """
    b = built(tiny(shapes, arch=arch, size=size, stem="standard", epochs=5, batch_size=40, lr=1e-3))
    start_statistics(b.model, b.data.train.epoch(1), b.run.device)
    trained = [b.train(epoch) for epoch in range(1, 6)][-1]
    assert b.data.val is not None
    measured = validate(b.model, b.data.val.epoch(0), b.run.card.classes, b.run.device, split="val")
    assert measured.accuracy > max(0.25, trained["train_acc"] - 0.15)  # seen: 0.41 to 1.00, at most 0.05 below
