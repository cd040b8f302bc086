"""Random changes to training images; every decision comes from uniform draws that `draws.uniforms` made.

Works on upright RGB pictures and gives uint8 arrays. Knows neither files nor workers. Crops follow torchvision's
RandomResizedCrop, but a box that does not fit is shrunk instead of drawn again; TrivialAugment is Müller and
Hutter 2021 with torchvision's wide ranges; erasing is Zhong et al. 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from imgcls.config import SMALL_IMAGE
from imgcls.pixels.transform import MOST_PIXELS, RESAMPLING, scaled_size, square, with_borders
from imgcls.schema import Preprocess

DRAWS = 20  # uniform numbers per image; the columns below
CROP, FLIP, ROTATE, JITTER, TRIVIAL, ERASE = slice(0, 4), 4, 5, slice(6, 9), slice(9, 12), slice(12, 17)

SMALLEST_CROP = {"light": 0.5, "standard": 0.25, "strong": 0.08}  # share of the picture's area
ERASE_PROBABILITY = 0.25

Draws = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to a training image."""

    kind: Literal["none", "light", "standard", "strong"]
    flip: bool
    rotate: float  # degrees, either way
    color_jitter: float  # share of brightness, contrast and saturation

    def __str__(self) -> str:
        extras = [
            *(["flip" if self.flip else "no flip"] if self.flip == (self.kind == "none") else []),
            *([f"rotate {self.rotate:g}°"] if self.rotate else []),
            *([f"color jitter {self.color_jitter:g}"] if self.color_jitter else []),
        ]
        return ", ".join([self.kind, *extras])


def augment(
    image: Image.Image, preprocess: Preprocess, augmentation: Augmentation, draws: Draws
) -> npt.NDArray[np.uint8]:
    """Turn an RGB picture into a training input: uint8 [size, size, 3].

    Args:
        image: any size.
        preprocess: the deterministic transform, whose size, resize rule and interpolation apply here too.
        augmentation: what may happen.
        draws: uniform numbers [DRAWS] of this image in this epoch.
    """
    kind, size = augmentation.kind, preprocess.size
    if kind == "none":
        picture = square(image, preprocess)
    elif size > SMALL_IMAGE:
        picture = _random_resized_crop(image, preprocess, SMALLEST_CROP[kind], draws[CROP])
    elif kind == "light":
        picture = square(image, preprocess)
    else:
        picture = _pad_and_crop(square(image, preprocess), draws[CROP])
    if augmentation.flip and draws[FLIP] < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if augmentation.rotate:
        degrees = (2 * draws[ROTATE] - 1) * augmentation.rotate
        picture = picture.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=preprocess.fill)
    if augmentation.color_jitter:
        for enhance, draw in zip(_ENHANCERS, draws[JITTER], strict=True):
            picture = enhance(picture).enhance(1 + (2 * draw - 1) * augmentation.color_jitter)
    if kind == "strong":
        picture = _trivial_augment(picture, preprocess.fill, draws[TRIVIAL])
        return _erase(np.array(picture), preprocess.fill, draws[ERASE])
    return np.asarray(picture)


def _random_resized_crop(image: Image.Image, preprocess: Preprocess, smallest: float, draws: Draws) -> Image.Image:
    """Cut a box of random area, shape (3:4 to 4:3) and place, and resize it to the input."""
    if preprocess.rule == "pad":
        if max(image.size) ** 2 > MOST_PIXELS:  # the borders of a strip of 1 x 60000 would fill gigabytes
            image = image.resize(scaled_size(*image.size, longer=4 * preprocess.size))
        image = with_borders(image, max(image.size), preprocess.fill)
    width, height = image.size
    area = smallest + draws[0] * (1 - smallest)
    ratio = math.exp((2 * draws[1] - 1) * math.log(4 / 3))
    # "squash" keeps the distortion of the deterministic transform: the box has the picture's own shape.
    base = (width, height) if preprocess.rule == "squash" else (math.sqrt(width * height),) * 2
    box_width, box_height = base[0] * math.sqrt(area * ratio), base[1] * math.sqrt(area / ratio)
    shrink = min(1.0, width / box_width, height / box_height)  # to fit, keeping its shape
    box_width, box_height = max(1, round(box_width * shrink)), max(1, round(box_height * shrink))
    left, top = int(draws[2] * (width - box_width + 1)), int(draws[3] * (height - box_height + 1))
    box = (left, top, left + box_width, top + box_height)
    return image.resize((preprocess.size,) * 2, RESAMPLING[preprocess.interpolation], box=box)


def _pad_and_crop(image: Image.Image, draws: Draws, padding: int = 4) -> Image.Image:
    """Shift by up to `padding` pixels; what comes in from outside is the mirrored border."""
    pixels = np.pad(np.asarray(image), ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
    left, top = (int(draw * (2 * padding + 1)) for draw in draws[2:4])
    return Image.fromarray(pixels[top : top + image.height, left : left + image.width])


_ENHANCERS: tuple[Callable[[Image.Image], ImageEnhance._Enhance], ...] = (
    ImageEnhance.Brightness,
    ImageEnhance.Contrast,
    ImageEnhance.Color,
)


def _affine(*, x: float = 0, y: float = 0, shear_x: float = 0, shear_y: float = 0) -> tuple[float, ...]:
    return (1, shear_x, x, shear_y, 1, y)


def _trivial_augment(image: Image.Image, fill: tuple[int, int, int], draws: Draws) -> Image.Image:
    """Apply one of 14 operations at one of 31 strengths."""
    strength = int(draws[1] * 31) / 30
    signed = strength if draws[2] < 0.5 else -strength

    def warped(matrix: tuple[float, ...]) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill)

    operations: tuple[Callable[[], Image.Image], ...] = (
        lambda: image,
        lambda: warped(_affine(shear_x=0.99 * signed)),
        lambda: warped(_affine(shear_y=0.99 * signed)),
        lambda: warped(_affine(x=32 * signed)),
        lambda: warped(_affine(y=32 * signed)),
        lambda: image.rotate(135 * signed, Image.Resampling.BILINEAR, fillcolor=fill),
        lambda: ImageEnhance.Brightness(image).enhance(1 + 0.99 * signed),
        lambda: ImageEnhance.Color(image).enhance(1 + 0.99 * signed),
        lambda: ImageEnhance.Contrast(image).enhance(1 + 0.99 * signed),
        lambda: ImageEnhance.Sharpness(image).enhance(1 + 0.99 * signed),
        lambda: ImageOps.posterize(image, 8 - round(6 * strength)),
        lambda: ImageOps.solarize(image, round(255 * (1 - strength))),
        lambda: ImageOps.autocontrast(image),
        lambda: ImageOps.equalize(image),
    )
    return operations[int(draws[0] * len(operations))]()


def _erase(pixels: npt.NDArray[np.uint8], fill: tuple[int, int, int], draws: Draws) -> npt.NDArray[np.uint8]:
    """Cover a box of 2 % to 33 % of the area, shape 0.3 to 3.3, with the mean colour; one image in four."""
    if draws[0] < ERASE_PROBABILITY:
        height, width = pixels.shape[:2]
        area = (0.02 + 0.31 * draws[1]) * height * width
        ratio = math.exp(math.log(0.3) + draws[2] * math.log(3.3 / 0.3))
        box_height, box_width = min(height, round(math.sqrt(area * ratio))), min(width, round(math.sqrt(area / ratio)))
        top, left = int(draws[3] * (height - box_height + 1)), int(draws[4] * (width - box_width + 1))
        pixels[top : top + box_height, left : left + box_width] = fill
    return pixels
