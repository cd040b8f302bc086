"""Half of the images are mirrored at random, or each in every other epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from augmenting import KINDS, LARGE, SMALL, augment, augmentation, drawn, frames, photo, still

from imgcls.data import draws
from imgcls.schema import Preprocess


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
@pytest.mark.parametrize("kind", KINDS)
def test_flip_mirrors_half_of_the_images(kind: str, preprocess: Preprocess) -> None:
    on, off = (augmentation(preprocess, augment=kind, flip=flip) for flip in (True, False))
    flipped = augment(photo(), preprocess, on, still(flip=[0.49]))
    assert np.array_equal(flipped, augment(photo(), preprocess, off, still(flip=[0.49]))[:, ::-1])
    assert np.array_equal(augment(photo(), preprocess, on, still(flip=[0.51])), flipped[:, ::-1])
    assert (drawn(on, 10000)["flip"] < 0.5).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
@pytest.mark.parametrize("kind", KINDS)
def test_alternating_flips_mirror_each_image_in_every_other_epoch(kind: str, preprocess: Preprocess) -> None:
    """Whatever its place in the order of the epoch."""
    on = augmentation(preprocess, augment=kind, flip=True, alternate_flip=True)
    off = augmentation(preprocess, augment=kind)
    unmoved = {name: np.repeat(values, 100, axis=0) for name, values in still().items()}
    seen = []
    for epoch in (1, 2, 3, 4):
        order = draws.order(0, epoch, 100)  # image order[k] is at place k
        values = unmoved | {"flip": on.draw(0, epoch, np.arange(100), order)["flip"]}
        varied = on.vary(frames(preprocess, 100)[order], values)
        plain = off.vary(frames(preprocess, 100)[order], values)
        mirrored = np.array([torch.equal(ours, other.flip(1)) for ours, other in zip(varied, plain, strict=True)])
        upright = np.array([torch.equal(ours, other) for ours, other in zip(varied, plain, strict=True)])
        assert np.array_equal(mirrored, ~upright)
        by_image = np.empty(100, dtype=bool)
        by_image[order] = mirrored
        seen.append(by_image)
    assert 35 <= seen[0].sum() <= 65
    for number in (1, 2, 3):
        assert np.array_equal(seen[number], ~seen[number - 1])


def test_alternating_flips_mirror_half_of_the_images_other_ones_for_another_seed() -> None:
    augmented, places = augmentation(LARGE, flip=True, alternate_flip=True), np.arange(10000)
    first, second = (augmented.draw(seed, 1, places, places)["flip"] < 0.5 for seed in (0, 1))
    for mirrored in (first, second):
        assert mirrored.mean() == pytest.approx(0.5, abs=0.02)
    assert (first == second).mean() == pytest.approx(0.5, abs=0.02)
    fillers = augmented.draw(0, 1, np.full(10000, -1), places)
    assert np.array_equal(fillers["flip"] < 0.5, first)
