"""A run put together: what goes into the checkpoint comes out of it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import built, same, tiny

from imgcls.checkpoint import Checkpoint, load, save
from imgcls.config import TrainConfig
from imgcls.data.holdout import NO_HOLDOUT
from imgcls.distributed import World
from imgcls.engine.decide.build import build, choose_compute
from imgcls.engine.decide.decided import choices
from imgcls.engine.decide.inputs import decide_inputs
from imgcls.engine.decide.learning import images_per_step
from imgcls.errors import DataError, ImgclsError, UsageError
from imgcls.settings import from_dict, to_dict

pytest_plugins = ("small_runs",)


def test_a_saved_state_is_restored_whole(pictures: Path, tmp_path: Path) -> None:
    """Network, optimizer, average, step and history, through a file."""
    config = tiny(pictures, ema=True, optimizer="adamw", limit=8)
    before = built(config)
    before.train()
    network, average = before.model.network.state_dict(), before.learner.validated.network.state_dict()
    assert not same(network, average)
    training = before.learner.state_dict() | {"history": [{"epoch": 1, "val_acc": 0.5}], "processes": 1}
    save(tmp_path / "last.pt", Checkpoint(before.run.card, average, NO_HOLDOUT, training))

    last = load(tmp_path / "last.pt")
    after = built(config, last)
    assert same(after.model.network.state_dict(), network)
    assert same(after.learner.validated.network.state_dict(), average)
    assert (after.learner.step, last.training["history"]) == (1, [{"epoch": 1, "val_acc": 0.5}])
    theirs, ours = (b.learner.optimizer for b in (before, after))
    for old, new in zip(theirs.param_groups[0]["params"], ours.param_groups[0]["params"], strict=True):
        first, second = theirs.state[old], ours.state[new]
        assert first.keys() == second.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_validated_is_the_average_with_ema(pictures: Path) -> None:
    plain = built(tiny(pictures)).learner
    assert plain.validated is plain.model
    averaged = built(tiny(pictures, ema=True)).learner
    assert averaged.average is not None
    assert averaged.validated is averaged.average.model is not averaged.model


def test_the_card_describes_the_model(pictures: Path) -> None:
    config = tiny(pictures, dropout=0.25, seed=4)
    card = built(config).run.card
    assert card.classes == ("blue", "green", "red")
    assert card.arch_options == {"stem": "standard", "dropout": 0.25}
    assert from_dict(TrainConfig, card.config) == config
    assert card.config == to_dict(config)
    assert card.data_fingerprint


def test_the_images_and_the_steps_of_an_epoch(pictures: Path) -> None:
    for asked, images, batches, steps in (
        ({"batch_size": 5, "accumulate": 2}, 10, 5, 3),
        ({"batch_size": 7, "accumulate": 4}, 24, 4, 1),  # there are no more
    ):
        config = tiny(pictures, **asked, epochs=2)
        b = built(config)
        assert images_per_step(config, b.run.inputs.splits, b.run.world) == images
        assert len(b.data.train) == batches
        assert b.run.schedule.steps == 2 * steps


def cut(data: Path, processes: int, **asked: Any) -> list[int]:
    """Return the sizes of the batches of all processes together (a dry run asks the others nothing)."""
    config = tiny(data, dry_run=True, **asked)
    compute = choose_compute(config, World(0, processes, 0, 1))
    _, _, built_data, _ = build(config, compute, decide_inputs(config))
    return [int(size) for size in np.diff(built_data.train.order.bounds)]


def test_batch_norm_gets_two_images_in_each_process(pictures: Path) -> None:
    """And what has none is cut as one process with the same global batch would be."""
    last_of_one = {"limit": 19, "batch_size": 3, "size": 32}
    assert cut(pictures, 3, arch="bn-cnn", **last_of_one) == [9, 10]
    assert cut(pictures, 2, arch="bn-cnn", **last_of_one) == [6, 6, 7]
    assert cut(pictures, 3, arch="simple-cnn", **last_of_one) == cut(
        pictures, 1, arch="simple-cnn", **last_of_one | {"batch_size": 9}
    )
    # A frozen backbone takes no statistics, until it is thawed.
    last_of_three = {"arch": "bn-cnn", "limit": 15, "batch_size": 6, "epochs": 3}
    assert cut(pictures, 2, **last_of_three, freeze_epochs=2) == [8, 7]
    for frozen in ("all", 3):
        assert cut(pictures, 2, **last_of_three, freeze_epochs=frozen) == [12, 3]


@pytest.mark.parametrize(
    ("processes", "asked", "error", "sentence"),
    [
        (1, {"batch_size": 1}, UsageError, "--batch-size 1: bn-cnn has BatchNorm, which .*; type --batch-size 2, or "),
        (
            4,
            {"limit": 7},
            DataError,
            "7 training images on 4 processes: bn-cnn .*; add images, or start fewer processes",
        ),
    ],
)
def test_what_is_too_little_for_batch_norm_is_refused_before_the_first_step(
    pictures: Path, processes: int, asked: dict[str, Any], error: type[ImgclsError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        cut(pictures, processes, arch="bn-cnn", **asked)
    cut(pictures, processes, arch="simple-cnn", **asked)
    cut(pictures, processes, arch="bn-cnn", freeze_epochs="all", **asked)


def test_class_weights_have_mean_one_over_the_images(seven: Path) -> None:
    assert built(tiny(seven, class_weights="balanced")).run.task.weights.tolist() == pytest.approx([7 / 4, 7 / 10])
    assert built(tiny(seven)).run.task.weights.tolist() == [1, 1]


def test_choices_come_with_reasons_the_device_first(pictures: Path) -> None:
    found = list(choices(built(tiny(pictures)).run.decided))
    assert [choice.name for choice in found] == [
        *("device", "threads", "precision", "size", "weights", "mean, std", "workers", "cache", "stem", "lr"),
        "warmup_steps",
    ]
    assert all(choice.reason for choice in found)
