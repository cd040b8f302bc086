"""Brightness, contrast and saturation vary, each by its own draw, as Pillow varies them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from augmenting import LARGE, SMALL, augment, augmentation, frames, photo, still
from PIL import Image, ImageEnhance


@pytest.mark.parametrize(("number", "quality"), [(0, "brightness"), (1, "contrast"), (2, "saturation")])
def test_color_jitter_varies_three_qualities_each_by_its_own_draw(number: int, quality: str) -> None:
    def measure(pixels: npt.NDArray[np.uint8]) -> float:
        levels = pixels.astype(float)
        of = {"brightness": levels, "contrast": levels.mean(axis=2), "saturation": np.ptp(levels, axis=2)}[quality]
        return float(of.std() if quality == "contrast" else of.mean())

    measured = []
    for uniform in (0.0, 0.5, 1.0):
        draws = still()
        draws["color_jitter"][0, number] = uniform
        measured.append(measure(augment(photo(), SMALL, augmentation(SMALL, color_jitter=0.5), draws)))
    assert measured[0] < 0.9 * measured[1]
    assert measured[1] < 0.97 * measured[2]
    assert measured[1] == pytest.approx(measure(np.asarray(photo())), rel=0.01)


@pytest.mark.parametrize("factors", [(0.6, 1, 1), (1.4, 1, 1), (1, 0.6, 1), (1, 1.4, 1), (1, 1, 0.6), (1, 1, 1.4)])
def test_color_jitter_is_that_of_pillow(factors: tuple[float, float, float]) -> None:
    theirs = Image.fromarray(frames(LARGE, 1)[0].numpy() // 2)  # darker than grey
    draws = still(color_jitter=[(factor - 1) / 0.4 / 2 + 0.5 for factor in factors])
    preprocess = replace(LARGE, resize=48)
    ours = augment(theirs, preprocess, augmentation(preprocess, color_jitter=0.4), draws)
    for enhance, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
    ):
        theirs = enhance(theirs).enhance(factor)
    assert abs(ours.astype(int) - np.asarray(theirs)).max() <= 2
