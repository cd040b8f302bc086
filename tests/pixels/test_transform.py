"""The deterministic transform gives the very pixels of torchvision's Resize and CenterCrop on PIL images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from torchvision.transforms import v2

from imgcls.errors import ImageError
from imgcls.pixels.decode import decode
from imgcls.pixels.transform import read, transform, with_borders
from imgcls.schema import Interpolation, Preprocess


def drawn(width: int, height: int) -> Image.Image:
    """A smooth pattern with some noise: neither flat nor pure noise hides a shift by a pixel."""
    generator = np.random.default_rng(width * 10007 + height)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = [128 + 100 * np.sin(x / 9 + phase) * np.cos(y / 7 - phase) for phase in range(3)]
    noisy = np.stack(waves, axis=2) + generator.normal(0, 10, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def torchvisions(image: Image.Image, resize: int, size: int, interpolation: str) -> npt.NDArray[np.uint8]:
    mode = v2.InterpolationMode(interpolation)
    steps = v2.Compose([v2.Resize(resize, interpolation=mode), v2.CenterCrop(size)])
    pixels: npt.NDArray[np.uint8] = np.asarray(steps(image))
    return pixels


SIZES = [(256, 256), (500, 375), (375, 500), (257, 256), (256, 257), (333, 500), (1023, 767), (31, 47), (300, 299)]
SIZES += [(97, 640), (640, 97), (1, 9), (223, 225), (300, 3)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_drawn_pictures_equal_torchvision(width: int, height: int, interpolation: Interpolation) -> None:
    image = drawn(width, height)
    for resize, size in ((256, 224), (232, 224), (64, 64), (33, 32), (224, 223)):
        ours = transform(np.asarray(image), Preprocess(size=size, resize=resize, interpolation=interpolation))
        assert ours.shape == (size, size, 3)
        assert ours.dtype == np.uint8
        assert np.array_equal(ours, torchvisions(image, resize, size, interpolation))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_photographs_equal_torchvision(photographs: Path, interpolation: Interpolation) -> None:
    paths = sorted(photographs.glob("*/*/*.jpg"))[::23]
    assert len(paths) > 15
    for path in paths:
        with Image.open(path) as opened:
            expected = torchvisions(opened.convert("RGB"), 256, 224, interpolation)
        ours = transform(decode(str(path)), Preprocess(size=224, resize=256, interpolation=interpolation))
        assert np.array_equal(ours, expected), path.name


def test_squash_keeps_everything_and_distorts() -> None:
    image = drawn(90, 30)
    ours = transform(np.asarray(image), Preprocess(size=32, resize=32, rule="squash"))
    assert np.array_equal(ours, np.asarray(v2.Resize((32, 32))(image)))


def test_pad_keeps_everything_and_adds_borders_of_the_mean_colour() -> None:
    preprocess = Preprocess(size=32, resize=32, rule="pad", mean=(0.2, 0.4, 0.6))
    wide, tall = (transform(np.asarray(drawn(*size)), preprocess) for size in ((90, 45), (45, 90)))
    for picture in (wide, tall.transpose(1, 0, 2)):
        assert (picture[:8] == preprocess.fill).all()
        assert (picture[24:] == preprocess.fill).all()
        assert (picture[8:24] != preprocess.fill).any(axis=2).mean() > 0.9
    assert np.array_equal(wide[8:24], np.asarray(drawn(90, 45).resize((32, 16), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("rule", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (7, 3)])
def test_every_rule_takes_every_shape(rule: Any, size: tuple[int, int]) -> None:
    assert transform(np.asarray(drawn(*size)), Preprocess(size=16, resize=18, rule=rule)).shape == (16, 16, 3)


def test_a_square_of_the_right_size_is_left_as_it_is() -> None:
    image = drawn(32, 32)
    for rule in ("crop", "squash", "pad"):
        preprocess = Preprocess(size=32, resize=32, rule=rule)
        assert np.array_equal(transform(np.asarray(image), preprocess), np.asarray(image))
        for size in ((32, 40), (40, 32)):
            assert transform(np.asarray(drawn(*size)), preprocess).shape == (32, 32, 3)


def test_a_strip_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 x 65000 pixels are a file of nothing, and resized to 256 pixels across they would take 17 GB."""
    resize = Image.Image.resize

    def bounded(image: Image.Image, size: tuple[int, int], *options: Any) -> Image.Image:
        assert size[0] * size[1] < 2e8
        return resize(image, size, *options)

    monkeypatch.setattr(Image.Image, "resize", bounded)
    column = np.zeros((65000, 1, 3), dtype=np.uint8)
    column[32400:32600] = 255  # the middle, which the crop shows
    for strip in (column, column.transpose(1, 0, 2)):
        cropped = transform(strip, Preprocess(size=224, resize=256))
        assert cropped.shape == (224, 224, 3)
        assert cropped.min() == 255


def test_the_strips_detour_gives_nearly_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    preprocess = Preprocess(size=32, resize=36)
    expected = transform(np.asarray(drawn(40, 400)), preprocess).astype(int)
    monkeypatch.setattr("imgcls.pixels.transform.MOST_PIXELS", 36 * 100)
    detour = transform(np.asarray(drawn(40, 400)), preprocess).astype(int)
    assert abs(detour - expected).max() <= 2


def test_borders_are_even() -> None:
    canvas = np.asarray(with_borders(Image.new("RGB", (2, 4), "white"), 4, (0, 0, 0)))
    assert canvas[:, :, 0].tolist() == [[0, 255, 255, 0]] * 4


def test_reading_a_file_is_decoding_and_the_transform(tmp_path: Path) -> None:
    path, preprocess = str(tmp_path / "large.jpg"), Preprocess(size=32, resize=36)
    drawn(400, 300).save(path, quality=95)
    assert np.array_equal(read(path, preprocess), transform(decode(path), preprocess))
    with pytest.raises(ImageError, match=r"missing\.png: no such file"):
        read(str(tmp_path / "missing.png"), preprocess)


@pytest.mark.parametrize("rule", ["crop", "squash", "pad"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_scaled_decoding_changes_large_pictures_a_little_and_small_ones_not(
    suffix: str, rule: Any, tmp_path: Path
) -> None:
    full = Preprocess(size=32, resize=36, rule=rule)
    scaled = replace(full, decode="scaled")
    large, small = str(tmp_path / f"large.{suffix}"), str(tmp_path / f"small.{suffix}")
    drawn(50, 38).resize((400, 304)).save(large)
    drawn(90, 71).save(small)  # less than twice 36
    assert np.array_equal(read(small, scaled), read(small, full))
    difference = abs(read(large, scaled).astype(int) - read(large, full))
    assert difference.shape == (32, 32, 3)
    assert 0 < difference.mean() < 3
