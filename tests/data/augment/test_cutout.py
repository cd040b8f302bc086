"""Cutout covers one square of every image, wherever its middle falls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from augmenting import LARGE, SMALL, augmentation, drawn, frames, still

from imgcls.schema import Preprocess


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
@pytest.mark.parametrize("cutout", [1, 8, 9, 20])
def test_cutout_covers_one_square_with_the_mean_colour(cutout: int, preprocess: Preprocess) -> None:
    strange = replace(preprocess, mean=(0.9, 0.1, 0.7))
    augmented, side = augmentation(strange, cutout=cutout), preprocess.size
    white = torch.full((300, side, side, 3), 255, dtype=torch.uint8)
    varied = augmented.vary(white, drawn(augmented, 300)).numpy()
    covered = (varied == strange.fill).all(axis=3)
    assert (varied[~covered] == 255).all()
    down, across = covered.any(axis=2), covered.any(axis=1)
    assert np.array_equal(covered, down[:, :, None] & across[:, None, :]), "one box"
    for reach in (down, across):
        lengths, starts = reach.sum(axis=1), reach.argmax(axis=1)
        ends = starts + lengths
        assert all(line[start:end].all() for line, start, end in zip(reach, starts, ends, strict=True))
        inside = (starts > 0) & (ends < side)
        assert (lengths[inside] == cutout).all()
        assert inside.any()
        assert lengths.min() == cutout - cutout // 2  # its middle is within the picture
        assert starts.min() == 0
        assert ends.max() == side
        assert len(set(starts.tolist())) > 10
    assert np.corrcoef(down.argmax(axis=1), across.argmax(axis=1))[0, 1] < 0.2, "two draws"


def test_the_place_of_cutout_is_its_draws() -> None:
    black = torch.zeros((1, 32, 32, 3), dtype=torch.uint8)
    covered = augmentation(SMALL, cutout=6).vary(black, still(cutout=[0.25, 0.75]))[0].numpy()
    expected = np.zeros((32, 32, 3), dtype=np.uint8)
    expected[5:11, 21:27] = SMALL.fill  # rows 8 - 3 and on, columns 24 - 3 and on
    assert np.array_equal(covered, expected)


def test_a_cutout_as_large_as_the_picture_is_allowed() -> None:
    augmented = augmentation(SMALL, cutout=4096)
    assert (augmented.vary(frames(SMALL, 8), drawn(augmented, 8)).numpy() == SMALL.fill).all()
