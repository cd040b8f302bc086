"""What a label weighs, and the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import draw, run, tiny, weighted
from torch.nn import functional as F

from imgcls.engine.learn.task import Task, balanced_weights

pytest_plugins = ("small_runs",)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [[1.0, 1.0, 1.0], [0.5, 30.0, 2.0]])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_loss_of_an_image_is_weighted_by_its_own_label(smoothing: float, weight: list[float], share: float) -> None:
    """Against the formula in float64; when images are mixed, for each of the two labels. A filler counts nothing."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(8, 3, generator=generator), torch.tensor([0, 1, 2, 0, 0, 1, 2, 0])
    weights, real = torch.tensor(weight), torch.ones(8, dtype=torch.bool)
    own, others = (
        weighted(logits.double(), targets, weights.double(), smoothing) for targets in (labels, labels.roll(1))
    )
    expected = share * own + (1 - share) * others
    task = Task(weights, smoothing)
    mixed = share * task.loss(logits, labels, real) + (1 - share) * task.loss(logits, labels.roll(1, 0), real)
    assert mixed.item() == pytest.approx(expected.item(), rel=1e-6)
    assert task.loss(logits, labels, ~real).item() == 0
    assert task.right(logits, labels, real).item() == (logits.argmax(1) == labels).sum()
    assert task.right(logits, logits.argmax(1), ~real).item() == 0
    # Both shares of the labels weigh as much as the labels alone, which is what the step is divided by.
    assert weights[labels].sum() == weights[labels.roll(1)].sum()


def test_without_weights_or_smoothing_the_loss_is_torchs_own_bit_by_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(64, 10, generator=generator), torch.arange(64) % 10
    for weights, smoothing in ((torch.ones(10), 0.1), (torch.rand(10, generator=generator), 0.0)):
        answers = []
        for ours in (True, False):
            given = logits.clone().requires_grad_()
            theirs = F.cross_entropy(given, labels, weight=weights, label_smoothing=smoothing, reduction="none").sum()
            loss = Task(weights, smoothing).loss(given, labels, torch.ones(64, dtype=torch.bool)) if ours else theirs
            answers.append((loss.detach(), *torch.autograd.grad(loss, given)))
        assert torch.equal(answers[0][0], answers[1][0])
        assert torch.equal(answers[0][1], answers[1][1])


@pytest.mark.parametrize("mixed", [{}, {"mixup": 0.2}], ids=str)
def test_a_rare_class_is_neither_lost_nor_answered_for_all(tmp_path: Path, mixed: dict[str, float]) -> None:
    """50 images for each one of the other class, as far apart as day and night, weighted and smoothed."""
    data = draw(tmp_path / "data", {"train/blue": 200, "train/red": 4, "val/blue": 10, "val/red": 10}, side=8)
    asked = {"class_weights": "balanced", "label_smoothing": 0.1, "lr": 1e-2, "epochs": 4, "batch_size": 32}
    done = run(tiny(data, **asked, **mixed, out=str(tmp_path / "run")))
    assert done.history[-1]["val_acc"] == 1.0


def test_balanced_weights_equal_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0] * 5 + [1] * 2 + [2] * 11)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_weights(np.bincount(labels)) == pytest.approx(expected)
