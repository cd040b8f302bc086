"""One optimizer step: clipping, dropout, and a backbone that rests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from carrying import shows
from small_runs import Built, Seen, Tensors, built, run, same, tiny

from imgcls.data import draws
from imgcls.models.surgery import last_layers

pytest_plugins = ("small_runs",)


def test_the_norm_of_the_gradient_is_clipped(pictures: Path, seen: Seen) -> None:
    run(tiny(pictures, clip_grad=0.01, dry_run=True))
    assert max(seen.norms) <= 0.01 * 1.001
    seen.norms.clear()
    run(tiny(pictures, dry_run=True))
    assert min(seen.norms) > 0.1


def test_dropout_is_a_function_of_the_step(pictures: Path) -> None:
    """What others draw from torch's generator meanwhile changes nothing; another seed of the step does."""
    weights = []
    for disturbance in (1, 7):
        b = built(tiny(pictures, dropout=0.5))
        torch.rand(disturbance)
        b.train(1)
        weights.append(b.model.state_dict())
    assert same(*weights)
    assert len({draws.step_seed(0, epoch, batch, rank) for epoch in (1, 2) for batch in (1, 2) for rank in (0, 1)}) == 8


def parts(b: Built) -> tuple[Tensors, Tensors]:
    """Return copies of backbone and head of a bn-cnn: its last layer is the head."""
    values = {key: value.clone() for key, value in b.model.network.state_dict().items()}
    last = list(values)[-1].split(".")[0]
    return (
        {key: value for key, value in values.items() if not key.startswith(last + ".")},
        {key: value for key, value in values.items() if key.startswith(last + ".")},
    )


@pytest.mark.parametrize("freeze_epochs", [1, 2, "all"])
@shows("train", "freeze_epochs")
def test_frozen_for_n_epochs(pictures: Path, freeze_epochs: Any) -> None:
    """The head learns, the backbone stays bit for bit, BatchNorm statistics included; then it learns too."""
    config = tiny(pictures, arch="bn-cnn", freeze_epochs=freeze_epochs, lr=1e-3, epochs=3, weight_decay=0.1, limit=8)
    b = built(config)
    for epoch in (1, 2, 3):
        backbone, head = parts(b)
        b.train(epoch)
        new_backbone, new_head = parts(b)
        assert not same(head, new_head)
        frozen = freeze_epochs == "all" or epoch <= freeze_epochs
        assert same(backbone, new_backbone) == frozen
        moved = not torch.equal(backbone["1.running_mean"], new_backbone["1.running_mean"])
        assert moved == (not frozen)


def test_a_frozen_backbone_rests_as_a_whole(pictures: Path) -> None:
    """Its dropout and its stochastic depth too; the dropout before the head acts."""
    b = built(tiny(pictures, arch="efficientnet_b0", size=32, freeze_epochs=1))
    features: list[torch.Tensor] = []
    dropout = last_layers(b.model.network)[0]
    dropout.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].clone()))  # it drops in place
    images = next(b.data.train.epoch(1)).images
    for epoch, frozen in ((1, True), (2, False), (1, True)):
        b.learner.begin(epoch)
        torch.manual_seed(0)
        first, second = b.model(images), b.model(images)
        assert torch.equal(*features) == frozen
        assert not torch.equal(first, second)
        training = {name for name, module in b.model.network.named_modules() if module.training}
        assert (training == {"classifier.0", "classifier.1"}) == frozen
        features.clear()
    learning = {name for name, weights in b.model.network.named_parameters() if weights.requires_grad}
    assert learning == {"classifier.1.weight", "classifier.1.bias"}


def test_the_header_counts_what_learns(pictures: Path) -> None:
    from small_runs import started

    frozen, free = (started(run(tiny(pictures, freeze_epochs=epochs, dry_run=True)).events) for epochs in ("all", 0))
    assert frozen.trainable == 3 * 16 * 8 * 8 + 3
    assert frozen.parameters == free.parameters == free.trainable > frozen.trainable
