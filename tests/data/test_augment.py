"""Every augmentation acts, stays within its bounds, and obeys the resize rule and nothing but its draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageEnhance

from imgcls.config import ResizeRule
from imgcls.data import draws
from imgcls.data.augment import (
    CROP,
    CUTOUT,
    DRAWS,
    ERASE,
    FLIP,
    JITTER,
    ROTATE,
    TRIVIAL,
    Augmentation,
    draw,
    frame,
    vary,
)
from imgcls.pixels.decode import reduced_size
from imgcls.pixels.transform import RESAMPLING, transform
from imgcls.schema import Interpolation, Preprocess

NOTHING = Augmentation(kind="none", flip=False, rotate=0, color_jitter=0)
SMALL, LARGE = Preprocess(size=32, resize=32), Preprocess(size=48, resize=54)
KINDS: tuple[Literal["none", "light", "standard", "strong"], ...] = ("none", "light", "standard", "strong")


def photo(width: int = 32, height: int = 32) -> Image.Image:
    """A coloured gradient: any crop, flip, turn or change of colour shows."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x / 2 - y / 2], axis=2).astype(np.uint8))


def augment(
    image: Image.Image, preprocess: Preprocess, augmentation: Augmentation, values: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8]:
    """One image on its way into a batch."""
    pixels = np.asarray(image)
    if not augmentation.crops(preprocess.size):
        pixels = transform(pixels, preprocess)
    framed = torch.from_numpy(np.array(frame(pixels, preprocess, augmentation, values)))
    varied: npt.NDArray[np.uint8] = vary(framed[None], preprocess, augmentation, values[None])[0].numpy()
    return varied


def still(**columns: float) -> npt.NDArray[np.float64]:
    """Draws that change nothing (the largest crop, no flip, no turn), but for the columns given."""
    values = np.full(DRAWS, 0.5)
    values[FLIP], values[TRIVIAL.start], values[ERASE.start] = 0.9, 0.0, 0.9
    values[CROP.start] = 1.0
    for name, value in columns.items():
        values[{"flip": FLIP, "rotate": ROTATE, "operation": TRIVIAL.start, "erase": ERASE.start}[name]] = value
    return values


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
def test_none_is_the_deterministic_transform(preprocess: Preprocess) -> None:
    plain = transform(np.asarray(photo(70, 50)), preprocess)
    for position in range(5):
        values = draws.uniforms(0, 1, [position], DRAWS)[0]
        assert np.array_equal(augment(photo(70, 50), preprocess, NOTHING, values), plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(32, 32), (90, 40), (40, 90), (5, 7), (1, 1), (1, 300)])
@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
def test_any_picture_becomes_a_square_of_uint8(
    kind: Any, rule: ResizeRule, size: tuple[int, int], preprocess: Preprocess
) -> None:
    augmentation = Augmentation(kind=kind, flip=True, rotate=30, color_jitter=0.5)
    for values in (np.zeros(DRAWS), np.full(DRAWS, 1 - 2.0**-53), *draws.uniforms(0, 1, range(3), DRAWS)):
        pixels = augment(photo(*size), replace(preprocess, rule=rule), augmentation, values)
        assert pixels.shape == (preprocess.size, preprocess.size, 3)
        assert pixels.dtype == np.uint8


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
@pytest.mark.parametrize("kind", ["light", "standard", "strong"])
def test_flip_mirrors_half_of_the_images(kind: Any, preprocess: Preprocess) -> None:
    on = Augmentation(kind=kind, flip=True, rotate=0, color_jitter=0)
    off = replace(on, flip=False)
    flipped = augment(photo(), preprocess, on, still(flip=0.49))
    assert np.array_equal(flipped, augment(photo(), preprocess, off, still(flip=0.49))[:, ::-1])
    assert np.array_equal(augment(photo(), preprocess, on, still(flip=0.51)), flipped[:, ::-1])


def test_rotate_turns_by_up_to_its_degrees() -> None:
    augmentation = replace(NOTHING, rotate=90)
    plain = np.asarray(photo()).astype(int)
    for uniform, turned in ((1.0, np.rot90(plain)), (0.0, np.rot90(plain, -1)), (0.5, plain)):
        assert abs(augment(photo(), SMALL, augmentation, still(rotate=uniform)).astype(int) - turned).max() <= 1
    gentle = augment(photo(), SMALL, replace(NOTHING, rotate=5), still(rotate=1.0))
    assert not np.array_equal(gentle, plain)
    assert (augment(photo(), SMALL, replace(NOTHING, rotate=45), still(rotate=1.0))[0, 0] == SMALL.fill).all()


@pytest.mark.parametrize(("number", "quality"), [(0, "brightness"), (1, "contrast"), (2, "saturation")])
def test_color_jitter_varies_three_qualities_each_by_its_own_draw(number: int, quality: str) -> None:
    def measure(pixels: npt.NDArray[np.uint8]) -> float:
        levels = pixels.astype(float)
        of = {"brightness": levels, "contrast": levels.mean(axis=2), "saturation": np.ptp(levels, axis=2)}[quality]
        return float(of.std() if quality == "contrast" else of.mean())

    measured = []
    for uniform in (0.0, 0.5, 1.0):
        values = still()
        values[JITTER.start + number] = uniform
        measured.append(measure(augment(photo(), SMALL, replace(NOTHING, color_jitter=0.5), values)))
    assert measured[0] < 0.9 * measured[1]
    assert measured[1] < 0.97 * measured[2]
    assert measured[1] == pytest.approx(measure(np.asarray(photo())), rel=0.01)


@pytest.mark.parametrize(("kind", "smallest"), [("light", 0.5), ("standard", 0.25), ("strong", 0.08)])
def test_large_inputs_are_cut_at_random_down_to_the_documented_share(kind: Any, smallest: float) -> None:
    """The gradient tells where the box was: red counts columns, green rows."""
    augmentation = Augmentation(kind=kind, flip=False, rotate=0, color_jitter=0)
    values = draws.uniforms(0, 1, range(400), DRAWS)
    values[:, TRIVIAL], values[:, ERASE] = 0.0, 0.9
    shares, centres = [], []
    for row in values:
        pixels = augment(photo(256, 256), LARGE, augmentation, row).astype(float)
        red, green = pixels[:, :, 0].mean(axis=0), pixels[:, :, 1].mean(axis=1)
        shares.append((red[-1] - red[0] + 6) * (green[-1] - green[0] + 6) / 256**2)
        centres.append(red.mean())
    assert min(shares) == pytest.approx(smallest, abs=0.05)
    assert max(shares) > 0.9
    assert np.ptp(centres) > 50


def test_small_inputs_are_shifted_and_not_cut_to_pieces() -> None:
    standard = Augmentation(kind="standard", flip=False, rotate=0, color_jitter=0)
    assert np.array_equal(augment(photo(), SMALL, replace(standard, kind="light"), still()), np.asarray(photo()))
    seen = set()
    for row in draws.uniforms(0, 1, range(500), DRAWS):
        pixels = augment(photo(), SMALL, standard, row)
        shift = int(pixels[16, 16, 0]) - int(np.asarray(photo())[16, 16, 0])
        seen.add(round(shift * 31 / 255))
    assert seen == set(range(-4, 5))


def test_what_a_shift_brings_in_is_the_mirrored_border() -> None:
    values = still()
    values[CROP] = [1.0, 0.5, 0.0, 0.5]
    shifted = augment(photo(), SMALL, Augmentation(kind="standard", flip=False, rotate=0, color_jitter=0), values)
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
    values = np.stack([still()] * len(places))
    values[:, CROP.start + 2], values[:, CROP.start + 3] = (places % span + 0.5) / span, (places // span + 0.5) / span
    values[:, FLIP] = places % 2
    standard, preprocess = Augmentation(kind="standard", flip=flip), Preprocess(size=side, resize=side)
    varied = vary(torch.from_numpy(images.copy()), preprocess, standard, values).numpy()
    for place, image, ours in zip(places, images, varied, strict=True):
        bordered = np.pad(image, ((border, border), (border, border), (0, 0)), mode="reflect")
        expected = bordered[place // span :, place % span :][:side, :side]
        assert np.array_equal(ours, expected[:, ::-1] if flip and place % 2 == 0 else expected)


STRONG = Augmentation(kind="strong", flip=False, rotate=0, color_jitter=0)


@pytest.mark.parametrize("operation", range(14))
def test_strong_covers_all_operations_of_trivial_augment(operation: int) -> None:
    """Each acts, without an error at any strength of either sign."""
    noise = np.random.default_rng(0).integers(-20, 20, (32, 32, 3))  # for sharpness to act on
    dull = Image.fromarray((np.asarray(photo()) // 2 + 40 + noise).astype(np.uint8))  # for auto-contrast to have room
    results = set()
    for strength in np.linspace(0, 1 - 1e-9, 31):
        for sign in (0.1, 0.9):
            values = still(operation=(operation + 0.5) / 14)
            values[TRIVIAL.start + 1 : TRIVIAL.stop] = strength, sign
            pixels = augment(dull, SMALL, STRONG, values)
            assert pixels.shape == (32, 32, 3)
            results.add(pixels.tobytes())
    assert operation == 0 or results != {np.asarray(dull).tobytes()}
    expected = {0: 1, 10: 7, 11: 15, 12: 1, 13: 1}.get(operation, 50)
    assert len(results) >= expected


def test_strong_survives_many_draws_on_odd_pictures() -> None:
    pictures = [photo(33, 47), Image.new("RGB", (20, 20)), Image.new("RGB", (3, 60), "white")]
    for number, row in enumerate(draws.uniforms(3, 1, range(600), DRAWS)):
        for preprocess in (SMALL, LARGE):
            pixels = augment(pictures[number % 3], preprocess, replace(STRONG, flip=True), row)
            assert pixels.shape[0] == preprocess.size


def test_one_image_in_four_is_erased_by_the_mean_colour_within_bounds() -> None:
    strange = Preprocess(size=32, resize=32, mean=(0.9, 0.1, 0.7))
    values = draws.uniforms(0, 1, range(800), DRAWS)
    values[:, TRIVIAL] = 0.0
    values[:, CROP] = 0.5
    shares = np.array([(augment(photo(), strange, STRONG, row) == strange.fill).all(axis=2).mean() for row in values])
    assert (shares > 0).mean() == pytest.approx(0.25, abs=0.05)
    assert shares[shares > 0].min() < 0.05
    assert shares.max() == pytest.approx(0.33, abs=0.04)


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
@pytest.mark.parametrize("kind", ["light", "standard", "strong"])
def test_copies_of_one_image_in_a_batch_differ(kind: Any, preprocess: Preprocess) -> None:
    augmentation = Augmentation(kind=kind, flip=True, rotate=0, color_jitter=0)
    rows = draws.uniforms(0, 1, range(64), DRAWS)
    distinct = {augment(photo(64, 64), preprocess, augmentation, row).tobytes() for row in rows}
    small_and_light = preprocess is SMALL and kind == "light"  # a flip is all that happens
    assert len(distinct) >= (2 if small_and_light else 32)
    again = augment(photo(64, 64), preprocess, augmentation, rows[5])
    assert again.tobytes() in distinct


def test_pad_shows_the_whole_picture_with_borders() -> None:
    red = Image.new("RGB", (96, 48), (255, 0, 0))
    pixels = augment(red, replace(LARGE, rule="pad"), replace(STRONG, kind="light"), still())
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

    values = still()
    values[CROP] = [0.0, 0.5, 0.5, 0.5]
    expectations: dict[ResizeRule, float] = {"squash": 0.5, "crop": 1.0, "pad": 1.0}
    for rule, expected in expectations.items():
        preprocess = replace(LARGE, rule=rule)
        assert shape(transform(np.asarray(disc), preprocess)) == pytest.approx(expected, abs=0.1)
        light = replace(STRONG, kind="light")
        assert shape(augment(disc, preprocess, light, values)) == pytest.approx(expected, abs=0.1), rule


def test_a_strip_cannot_fill_the_memory() -> None:
    """Padded to a square, 1 x 65000 pixels would take 17 GB."""
    strip = Image.fromarray(np.zeros((65000, 1, 3), dtype=np.uint8))
    assert augment(strip, replace(LARGE, rule="pad"), STRONG, still()).shape == (48, 48, 3)


def test_an_augmentation_describes_itself() -> None:
    assert str(Augmentation(kind="standard", flip=True, rotate=0, color_jitter=0)) == "standard"
    described = str(Augmentation(kind="strong", flip=False, rotate=15, color_jitter=0.4))
    assert described == "strong, no flip, rotate 15°, color jitter 0.4"
    assert str(replace(NOTHING, flip=True, alternate_flip=True, cutout=8)) == "none, flip, alternating flip, cutout 8"


OPTIONS: dict[str, dict[str, Any]] = {
    "flip": {"flip": True},
    "alternate flip": {"flip": True, "alternate_flip": True},
    "rotate": {"rotate": 20},
    "color jitter": {"color_jitter": 0.4},
    "cutout": {"cutout": 9},
    "all": {"flip": True, "rotate": 20, "color_jitter": 0.4, "cutout": 9},
}


def frames(preprocess: Preprocess, count: int) -> torch.Tensor:
    """Different frames, uint8 [count, S, S, 3]."""
    side = preprocess.size
    waves = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return torch.from_numpy(np.stack([np.asarray(Image.fromarray(wave).resize((side, side))) for wave in waves]))


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_images_one_by_one(kind: Any, options: str, preprocess: Preprocess) -> None:
    augmentation = replace(NOTHING, kind=kind, **OPTIONS[options])
    places = np.arange(12)
    values = draw(augmentation, 5, 2, places + 100, places)
    assert values.shape == (12, DRAWS)
    whole = vary(frames(preprocess, 12), preprocess, augmentation, values)
    assert (whole.shape, whole.dtype) == ((12, preprocess.size, preprocess.size, 3), torch.uint8)
    for row, one in enumerate(frames(preprocess, 12)):
        assert torch.equal(vary(one[None].clone(), preprocess, augmentation, values[[row]])[0], whole[row])


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
@pytest.mark.parametrize(
    "augmentation",
    [
        *(replace(NOTHING, kind=kind, flip=True) for kind in ("light", "standard", "strong")),
        *(replace(NOTHING, **OPTIONS[option]) for option in ("rotate", "color jitter", "cutout")),
    ],
    ids=str,
)
def test_copies_of_one_image_become_different_inputs(augmentation: Augmentation, preprocess: Preprocess) -> None:
    values = draw(augmentation, 0, 1, np.arange(64), np.zeros(64, dtype=np.int64))
    pixels = np.asarray(photo(70, 70) if augmentation.crops(preprocess.size) else photo(*[preprocess.size] * 2))
    cut = np.stack([frame(pixels, preprocess, augmentation, row) for row in values])
    varied = vary(torch.from_numpy(cut), preprocess, augmentation, values).numpy()
    few = preprocess is SMALL and augmentation.kind == "light"  # a flip is all that happens
    assert len({image.tobytes() for image in varied}) >= (2 if few else 32)


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
@pytest.mark.parametrize("kind", KINDS)
def test_alternating_flips_mirror_each_image_in_every_other_epoch(kind: Any, preprocess: Preprocess) -> None:
    """Whatever its place in the order of the epoch."""
    augmentation = replace(NOTHING, kind=kind, flip=True, alternate_flip=True)
    seen = []
    for epoch in (1, 2, 3, 4):
        order = draws.order(0, epoch, 100)  # image order[k] is at place k
        values = draw(augmentation, 0, epoch, np.arange(100), order)
        values[:, TRIVIAL], values[:, ERASE] = 0.0, 0.9  # nothing that comes after the flip
        varied = vary(frames(preprocess, 100)[order], preprocess, augmentation, values)
        plain = vary(frames(preprocess, 100)[order], preprocess, replace(augmentation, flip=False), values)
        mirrored = np.array([torch.equal(one, other.flip(1)) for one, other in zip(varied, plain, strict=True)])
        upright = np.array([torch.equal(one, other) for one, other in zip(varied, plain, strict=True)])
        assert np.array_equal(mirrored, ~upright)
        by_image = np.empty(100, dtype=bool)
        by_image[order] = mirrored
        seen.append(by_image)
    assert 35 <= seen[0].sum() <= 65
    for number in (1, 2, 3):
        assert np.array_equal(seen[number], ~seen[number - 1])


def test_alternating_flips_mirror_half_of_the_images_other_ones_for_another_seed() -> None:
    augmentation, places = replace(NOTHING, flip=True, alternate_flip=True), np.arange(10000)
    first, second = (draw(augmentation, seed, 1, places, places)[:, FLIP] < 0.5 for seed in (0, 1))
    for mirrored in (first, second):
        assert mirrored.mean() == pytest.approx(0.5, abs=0.02)
    assert (first == second).mean() == pytest.approx(0.5, abs=0.02)
    fillers = draw(augmentation, 0, 1, np.full(10000, -1), places)
    assert np.array_equal(fillers[:, FLIP] < 0.5, first)


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
@pytest.mark.parametrize("cutout", [1, 8, 9, 20])
def test_cutout_covers_one_square_with_the_mean_colour(cutout: int, preprocess: Preprocess) -> None:
    strange = replace(preprocess, mean=(0.9, 0.1, 0.7))
    augmentation, side = replace(NOTHING, cutout=cutout), preprocess.size
    values = draw(augmentation, 0, 1, np.arange(300), np.arange(300))
    white = torch.full((300, side, side, 3), 255, dtype=torch.uint8)
    varied = vary(white, strange, augmentation, values).numpy()
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
    values = still()[None]
    values[:, CUTOUT] = [0.25, 0.75]
    black = vary(torch.zeros((1, 32, 32, 3), dtype=torch.uint8), SMALL, replace(NOTHING, cutout=6), values)[0].numpy()
    expected = np.zeros((32, 32, 3), dtype=np.uint8)
    expected[5:11, 21:27] = SMALL.fill  # rows 8 - 3 and on, columns 24 - 3 and on
    assert np.array_equal(black, expected)


def test_a_cutout_as_large_as_the_picture_is_allowed() -> None:
    values = draws.uniforms(0, 1, range(8), DRAWS)
    assert (vary(frames(SMALL, 8), SMALL, replace(NOTHING, cutout=4096), values).numpy() == SMALL.fill).all()


@pytest.mark.parametrize("degrees", [-30, -7, 3, 20, 90])
def test_rotate_turns_as_pillow_does(degrees: int) -> None:
    picture = photo(64, 64)
    preprocess = Preprocess(size=64, resize=64, mean=(0.9, 0.1, 0.7))
    ours = augment(picture, preprocess, replace(NOTHING, rotate=180), still(rotate=(degrees / 180 + 1) / 2)).astype(int)
    theirs = picture.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=preprocess.fill)
    x, y = np.meshgrid(np.arange(64) - 31.5, np.arange(64) - 31.5)
    angle = np.radians(degrees)
    from_x, from_y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    reach = np.maximum(abs(from_x), abs(from_y))
    inside, outside = reach < 31, reach > 33
    assert abs(ours - np.asarray(theirs))[inside].max() <= 2
    assert (ours[outside] == preprocess.fill).all()


@pytest.mark.parametrize("factors", [(0.6, 1, 1), (1.4, 1, 1), (1, 0.6, 1), (1, 1.4, 1), (1, 1, 0.6), (1, 1, 1.4)])
def test_color_jitter_is_that_of_pillow(factors: tuple[float, float, float]) -> None:
    theirs = Image.fromarray(frames(LARGE, 1)[0].numpy() // 2)  # darker than grey
    values = still()
    values[JITTER] = [(factor - 1) / 0.4 / 2 + 0.5 for factor in factors]
    ours = augment(theirs, replace(LARGE, resize=48), replace(NOTHING, color_jitter=0.4), values)
    for enhance, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
    ):
        theirs = enhance(theirs).enhance(factor)
    assert abs(ours.astype(int) - np.asarray(theirs)).max() <= 2


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "box"])
@pytest.mark.parametrize("side", [300, 30])
def test_a_crop_is_resized_as_pillow_does(side: int, interpolation: Interpolation) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    preprocess = replace(LARGE, interpolation=interpolation)
    ours = frame(noise, preprocess, replace(NOTHING, kind="light"), still()).astype(int)
    theirs = Image.fromarray(noise).resize((48, 48), RESAMPLING[interpolation])
    assert abs(ours - np.asarray(theirs)).max() <= (1 if interpolation in ("bilinear", "bicubic") else 0)


@pytest.mark.parametrize(("kind", "shorter"), [("light", 317), ("standard", 448), ("strong", 792)])
def test_a_picture_is_decoded_so_large_that_its_smallest_crop_is_not_enlarged(kind: Any, shorter: int) -> None:
    augmentation = replace(NOTHING, kind=kind)
    assert augmentation.shorter(224) == shorter
    assert augmentation.crops(224)
    values = still()
    values[CROP] = 0.0, 0.5, 0.5, 0.5  # the smallest box, square
    stripes = np.zeros((shorter, shorter, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    cut = frame(stripes, Preprocess(size=224, resize=256), augmentation, values)
    assert cut.std() > 50, "stripes of one pixel are still there"


@pytest.mark.parametrize("rule", ["crop", "squash", "pad"])
@pytest.mark.parametrize("kind", ["light", "standard", "strong"])
def test_crops_from_a_reduced_picture_are_like_those_from_the_whole(kind: Any, rule: ResizeRule) -> None:
    augmentation, preprocess = replace(NOTHING, kind=kind), replace(LARGE, rule=rule)
    shorter = augmentation.shorter(48)
    x, y = np.meshgrid(np.arange(900), np.arange(700))
    waves = [128 + 100 * np.sin(x / 90 + phase) * np.cos(y / 75 - phase) for phase in range(3)]
    whole = np.stack(waves, axis=2).astype(np.uint8)
    divisor = -(-900 // reduced_size(900, 700, shorter)[0])
    assert divisor > 1
    reduced = np.asarray(Image.fromarray(whole).reduce(divisor))
    differences = []
    for values in draws.uniforms(0, 1, range(50), DRAWS):
        ours, full = (frame(pixels, preprocess, augmentation, values).astype(int) for pixels in (reduced, whole))
        differences.append(abs(ours - full).mean())
    assert np.mean(differences) < 4
    assert max(differences) < 8  # a box begins at whole pixels of the reduced picture


def test_what_is_cut_at_random_and_what_never_changes() -> None:
    assert [replace(NOTHING, kind=kind).crops(224) for kind in KINDS] == [False, True, True, True]
    assert [replace(NOTHING, kind=kind).crops(40) for kind in KINDS] == [False] * 4
    assert NOTHING.is_identity
    assert not any(replace(NOTHING, kind=kind).is_identity for kind in KINDS[1:])
    assert not any(replace(NOTHING, **options).is_identity for options in OPTIONS.values())
