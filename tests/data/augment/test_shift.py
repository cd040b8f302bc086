"""Small images are shifted by up to four pixels, and what comes in is their mirrored border."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from augmenting import SMALL, augment, augmentation, drawn, photo, still

from imgcls.schema import Preprocess


def test_small_inputs_are_shifted_and_not_cut_to_pieces() -> None:
    standard, plain = augmentation(SMALL, augment="standard"), np.asarray(photo())
    assert np.array_equal(augment(photo(), SMALL, augmentation(SMALL, augment="light"), still()), plain)
    assert np.array_equal(augment(photo(), SMALL, standard, still()), plain)
    seen, draws = set(), drawn(standard, 500)
    for row in range(500):
        pixels = augment(photo(), SMALL, standard, draws, row)
        shift = int(pixels[16, 16, 0]) - int(plain[16, 16, 0])
        seen.add(round(shift * 31 / 255))
    assert seen == set(range(-4, 5))


def test_what_a_shift_brings_in_is_the_mirrored_border() -> None:
    shifted = augment(photo(), SMALL, augmentation(SMALL, augment="standard"), still(shift=[0.0, 0.5]))
    plain = np.asarray(photo())
    assert np.array_equal(shifted[:, 4:], plain[:, :28])
    assert np.array_equal(shifted[:, :4], plain[:, 4:0:-1])


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 6, 40])
@pytest.mark.parametrize("flip", [False, True])
def test_shifts_are_crops_from_the_picture_with_a_mirrored_border(side: int, flip: bool) -> None:
    """Of 4 pixels, as far as there is as much to mirror."""
    border = min(4, side - 1)
    span = 2 * border + 1
    places = np.arange(span**2)
    images = np.random.default_rng(side).integers(0, 256, (len(places), side, side, 3), dtype=np.uint8)
    draws = {
        "shift": np.stack([(places % span + 0.5) / span, (places // span + 0.5) / span], axis=1),
        "flip": (places % 2).astype(np.float64)[:, None],
    }
    standard = augmentation(Preprocess(size=side, resize=side), augment="standard", flip=flip)
    varied = standard.vary(torch.from_numpy(images.copy()), draws).numpy()
    for place, image, ours in zip(places, images, varied, strict=True):
        bordered = np.pad(image, ((border, border), (border, border), (0, 0)), mode="reflect")
        expected = bordered[place // span :, place % span :][:side, :side]
        assert np.array_equal(ours, expected[:, ::-1] if flip and place % 2 == 0 else expected)
