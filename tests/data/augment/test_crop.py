"""Crops reach down to the documented share, obey the resize rule, and are resized as Pillow does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from augmenting import LARGE, augment, augmentation, drawn, photo, still
from PIL import Image

from imgcls.config import ResizeRule
from imgcls.data.augment.crop import RandomResizedCrop
from imgcls.pixels.decode import reduced_size
from imgcls.pixels.transform import RESAMPLING, transform
from imgcls.schema import Interpolation, Preprocess


@pytest.mark.parametrize(("kind", "smallest"), [("light", 0.5), ("standard", 0.25), ("strong", 0.08)])
def test_large_inputs_are_cut_at_random_down_to_the_documented_share(kind: str, smallest: float) -> None:
    """The gradient tells where the box was: red counts columns, green rows."""
    augmented = augmentation(LARGE, augment=kind)
    draws = {name: np.repeat(values, 400, axis=0) for name, values in still().items()}
    draws["crop"] = drawn(augmented, 400)["crop"]
    shares, centres = [], []
    for row in range(400):
        pixels = augment(photo(256, 256), LARGE, augmented, draws, row).astype(float)
        red, green = pixels[:, :, 0].mean(axis=0), pixels[:, :, 1].mean(axis=1)
        shares.append((red[-1] - red[0] + 6) * (green[-1] - green[0] + 6) / 256**2)
        centres.append(red.mean())
    assert min(shares) == pytest.approx(smallest, abs=0.05)
    assert max(shares) > 0.9
    assert np.ptp(centres) > 50


def test_pad_shows_the_whole_picture_with_borders() -> None:
    red, preprocess = Image.new("RGB", (96, 48), (255, 0, 0)), replace(LARGE, rule="pad")
    pixels = augment(red, preprocess, augmentation(preprocess, augment="light"), still())
    rows = (pixels == (255, 0, 0)).all(axis=2).mean(axis=1)
    assert (pixels[0] == LARGE.fill).all()
    assert (pixels[-1] == LARGE.fill).all()
    assert rows[24] == 1
    assert rows.mean() == pytest.approx(0.5, abs=0.1)


def test_squash_keeps_the_distortion_that_validation_has() -> None:
    """A disc on a 2:1 picture is half as wide as high after squashing, in training as in validation."""
    x, y = np.meshgrid(np.arange(128), np.arange(64))
    disc = Image.fromarray(
        np.where(((x - 64) ** 2 + (y - 32) ** 2 < 20**2)[:, :, None], 255, 0).astype(np.uint8) * np.ones(3, np.uint8)
    )

    def shape(pixels: npt.NDArray[np.uint8]) -> float:
        inside = pixels[:, :, 0] > 127
        return float(inside.any(axis=0).sum() / inside.any(axis=1).sum())

    draws = still(crop=[0.0, 0.5, 0.5, 0.5])
    expectations: dict[ResizeRule, float] = {"squash": 0.5, "crop": 1.0, "pad": 1.0}
    for rule, expected in expectations.items():
        preprocess = replace(LARGE, rule=rule)
        assert shape(transform(np.asarray(disc), preprocess)) == pytest.approx(expected, abs=0.1)
        light = augmentation(preprocess, augment="light")
        assert shape(augment(disc, preprocess, light, draws)) == pytest.approx(expected, abs=0.1), rule


def test_a_strip_cannot_fill_the_memory() -> None:
    """Padded to a square, 1 x 65000 pixels would take 17 GB."""
    strip = Image.fromarray(np.zeros((65000, 1, 3), dtype=np.uint8))
    preprocess = replace(LARGE, rule="pad")
    assert augment(strip, preprocess, augmentation(preprocess, augment="strong"), still()).shape == (48, 48, 3)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "box"])
@pytest.mark.parametrize("side", [300, 30])
def test_a_crop_is_resized_as_pillow_does(side: int, interpolation: Interpolation) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    crop = RandomResizedCrop(replace(LARGE, interpolation=interpolation), 0.5)
    ours = crop.apply(noise, {"crop": still()["crop"][0]}).astype(int)
    theirs = Image.fromarray(noise).resize((48, 48), RESAMPLING[interpolation])
    assert abs(ours - np.asarray(theirs)).max() <= (1 if interpolation in ("bilinear", "bicubic") else 0)


@pytest.mark.parametrize(("kind", "shorter"), [("light", 317), ("standard", 448), ("strong", 792)])
def test_a_picture_is_decoded_so_large_that_its_smallest_crop_is_not_enlarged(kind: str, shorter: int) -> None:
    augmented = augmentation(Preprocess(size=224, resize=256), augment=kind)
    assert augmented.shorter == shorter
    stripes = np.zeros((shorter, shorter, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    cut = augmented.frame(stripes, still(crop=[0.0, 0.5, 0.5, 0.5]), 0)  # the smallest box, square
    assert cut.std() > 50, "stripes of one pixel are still there"


@pytest.mark.parametrize("rule", ["crop", "squash", "pad"])
@pytest.mark.parametrize("kind", ["light", "standard", "strong"])
def test_crops_from_a_reduced_picture_are_like_those_from_the_whole(kind: str, rule: ResizeRule) -> None:
    augmented = augmentation(replace(LARGE, rule=rule), augment=kind)
    x, y = np.meshgrid(np.arange(900), np.arange(700))
    waves = [128 + 100 * np.sin(x / 90 + phase) * np.cos(y / 75 - phase) for phase in range(3)]
    whole = np.stack(waves, axis=2).astype(np.uint8)
    assert augmented.shorter is not None
    divisor = -(-900 // reduced_size(900, 700, augmented.shorter)[0])
    assert divisor > 1
    reduced = np.asarray(Image.fromarray(whole).reduce(divisor))
    draws, differences = drawn(augmented, 50), []
    for row in range(50):
        ours, full = (augmented.frame(pixels, draws, row).astype(int) for pixels in (reduced, whole))
        differences.append(abs(ours - full).mean())
    assert np.mean(differences) < 4
    assert max(differences) < 8  # a box begins at whole pixels of the reduced picture
