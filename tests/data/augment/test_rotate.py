"""Rotation turns by up to its degrees either way, as Pillow does."""

from __future__ import annotations

import numpy as np
import pytest
from augmenting import SMALL, augment, augmentation, photo, still
from PIL import Image

from imgcls.schema import Preprocess


def test_rotate_turns_by_up_to_its_degrees() -> None:
    right_angle = augmentation(SMALL, rotate=90)
    plain = np.asarray(photo()).astype(int)
    for uniform, turned in ((1.0, np.rot90(plain)), (0.0, np.rot90(plain, -1)), (0.5, plain)):
        assert abs(augment(photo(), SMALL, right_angle, still(rotate=[uniform])).astype(int) - turned).max() <= 1
    gentle = augment(photo(), SMALL, augmentation(SMALL, rotate=5), still(rotate=[1.0]))
    assert not np.array_equal(gentle, plain)
    half = augment(photo(), SMALL, augmentation(SMALL, rotate=45), still(rotate=[1.0]))
    assert (half[0, 0] == SMALL.fill).all()


@pytest.mark.parametrize("degrees", [-30, -7, 3, 20, 90])
def test_rotate_turns_as_pillow_does(degrees: int) -> None:
    picture = photo(64, 64)
    preprocess = Preprocess(size=64, resize=64, mean=(0.9, 0.1, 0.7))
    draws = still(rotate=[(degrees / 180 + 1) / 2])
    ours = augment(picture, preprocess, augmentation(preprocess, rotate=180), draws).astype(int)
    theirs = picture.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=preprocess.fill)
    x, y = np.meshgrid(np.arange(64) - 31.5, np.arange(64) - 31.5)
    angle = np.radians(degrees)
    from_x, from_y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    reach = np.maximum(abs(from_x), abs(from_y))
    inside, outside = reach < 31, reach > 33
    assert abs(ours - np.asarray(theirs))[inside].max() <= 2
    assert (ours[outside] == preprocess.fill).all()
