"""Mixup and cutmix: what is mixed, by how much, and that the labels follow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from carrying import shows
from small_runs import Seen, Still, built, run, tiny
from torch.nn import functional as F

from imgcls.data import draws
from imgcls.engine.learn.mixing import mix

pytest_plugins = ("small_runs",)


def images(count: int = 4) -> torch.Tensor:
    """Pictures of one level each: 0, 60, 120 and so on."""
    return (torch.arange(count, dtype=torch.uint8) * 60).view(-1, 1, 1, 1).expand(-1, 3, 16, 16).contiguous()


def test_mixup_is_a_weighted_mean_with_the_neighbour() -> None:
    mixed, own = mix(images(), 0.4, 0, draws.generator(0, 1, 1))
    assert 0 < own < 1
    expected = own * images().float() + (1 - own) * images().roll(1, 0).float()
    torch.testing.assert_close(mixed, expected, atol=1e-3, rtol=0)


def test_cutmix_pastes_a_box_and_the_share_is_what_is_left() -> None:
    shares = []
    for batch in range(30):
        mixed, own = mix(images(), 0, 1.0, draws.generator(0, 1, batch))
        assert mixed.dtype == torch.uint8
        from_neighbour = mixed == images().roll(1, 0)
        assert torch.equal(from_neighbour, mixed != images())
        assert from_neighbour.float().mean((1, 2, 3)).tolist() == pytest.approx([1 - own] * 4)
        shares.append(own)
    assert min(shares) < 0.3
    assert max(shares) > 0.8


def test_with_both_either_is_used() -> None:
    kinds = {mix(images(), 0.4, 1.0, draws.generator(0, 1, batch))[0].dtype for batch in range(20)}
    assert kinds == {torch.uint8, torch.float32}


def test_the_parameter_says_how_much_is_mixed() -> None:
    """Beta(a, a): a large parameter mixes half and half, a small one leaves most images nearly alone."""

    def distance_from_half(parameter: float) -> float:
        shares = [mix(images(), parameter, 0, draws.generator(0, 1, batch))[1] for batch in range(50)]
        return float(np.mean(np.abs(np.array(shares) - 0.5)))

    assert distance_from_half(50) < 0.05 < 0.4 < distance_from_half(0.1)


@shows("train", "mixup")
def test_a_run_with_mixup_sees_mixed_images(pictures: Path, tmp_path: Path, seen: Seen) -> None:
    """Training accuracy is unknown, because the labels are mixed too; validation is not mixed."""
    plain = run(tiny(pictures, out=str(tmp_path / "plain")))
    assert {batch.dtype for batch in seen.train} == {torch.uint8}
    assert plain.history[0]["train_acc"] is not None
    seen.train.clear()
    done = run(tiny(pictures, mixup=0.4, out=str(tmp_path / "mixup")))
    assert {batch.dtype for batch in seen.train} == {torch.float32}
    assert {batch.dtype for batch in seen.val} == {torch.uint8}
    assert done.history[0]["train_acc"] is None


@shows("train", "cutmix")
def test_a_run_with_cutmix_sees_pasted_images(pictures: Path, tmp_path: Path, seen: Seen) -> None:
    run(tiny(pictures, batch_size=24, dry_run=True))
    done = run(tiny(pictures, batch_size=24, cutmix=1.0, out=str(tmp_path / "cutmix")))
    plain, pasted = seen.train
    other = plain != pasted
    assert other.any()
    assert torch.equal(pasted[other], plain.roll(1, 0)[other])
    assert done.history[0]["train_acc"] is None


@pytest.mark.parametrize("asked", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_the_loss_is_shared_between_both_labels(pictures: Path, seen: Seen, asked: dict[str, float]) -> None:
    b = built(tiny(pictures, batch_size=24, **asked), kind=Still)
    measured = b.train()
    (batch,) = b.data.train.epoch(1)
    mixed, own = mix(batch.images, asked.get("mixup", 0), asked.get("cutmix", 0), draws.generator(0, 1, 1))
    logits = b.model(mixed)
    expected = own * F.cross_entropy(logits, batch.labels)
    expected = expected + (1 - own) * F.cross_entropy(logits, batch.labels.roll(1, 0))
    assert measured["train_loss"] == pytest.approx(expected.item(), abs=1e-6)
