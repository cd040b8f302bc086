"""Random changes to training images; every decision comes from uniform draws that `draws.uniforms` made.

A picture becomes a square frame (`frame`, one by one, from files or memory), and frames are varied in batches
(`vary`, on the CPU or a GPU). Knows neither files nor workers. Crops follow torchvision's RandomResizedCrop, but a box
that does not fit is shrunk instead of drawn again; TrivialAugment is Müller and Hutter 2021 with torchvision's wide
ranges; erasing is Zhong et al. 2020, cutout DeVries and Taylor 2017, alternating flips Jordan 2024 (airbench).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch.nn import functional as F

from imgcls.config import SMALL_IMAGE
from imgcls.data.draws import ALTERNATE, hashed, uniforms
from imgcls.device import put
from imgcls.pixels.decode import Pixels
from imgcls.pixels.transform import MOST_PIXELS, RESAMPLING, scaled_size, with_borders
from imgcls.schema import Interpolation, Preprocess

DRAWS = 20  # uniform numbers per image; the columns below
CROP, FLIP, ROTATE, JITTER, TRIVIAL, ERASE = slice(0, 4), 4, 5, slice(6, 9), slice(9, 12), slice(12, 17)
CUTOUT = slice(17, 19)

SMALLEST_CROP = {"light": 0.5, "standard": 0.25, "strong": 0.08}  # share of the picture's area
PADDING = 4  # pixels that small images are shifted by at most
ERASE_PROBABILITY = 0.25

Draws = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to a training image."""

    kind: Literal["none", "light", "standard", "strong"]
    flip: bool
    rotate: float = 0  # degrees, either way
    color_jitter: float = 0  # share of brightness, contrast and saturation
    alternate_flip: bool = False  # mirror in every other epoch instead of at random
    cutout: int = 0  # side of the covered square, pixels

    def __str__(self) -> str:
        extras = [
            *(["flip" if self.flip else "no flip"] if self.flip == (self.kind == "none") else []),
            *(["alternating flip"] if self.alternate_flip else []),
            *([f"rotate {self.rotate:g}°"] if self.rotate else []),
            *([f"color jitter {self.color_jitter:g}"] if self.color_jitter else []),
            *([f"cutout {self.cutout}"] if self.cutout else []),
        ]
        return ", ".join([self.kind, *extras])

    @property
    def is_identity(self) -> bool:
        """Whether every epoch sees the same pixels."""
        return self.kind == "none" and not (self.flip or self.rotate or self.color_jitter or self.cutout)

    def crops(self, size: int) -> bool:
        """Tell whether boxes are cut at random from the picture, at this input size."""
        return self.kind != "none" and size > SMALL_IMAGE

    def shorter(self, size: int) -> int:
        """Return the shorter side that a picture needs so that the smallest square crop still has `size` pixels."""
        return math.ceil(size / math.sqrt(SMALLEST_CROP[self.kind]))


def draw(augmentation: Augmentation, seed: int, epoch: int, positions: Integers, indices: Integers) -> Draws:
    """Return the draws of one batch, float64 [B, DRAWS].

    Args:
        augmentation: alternating flips depend on the image, not on its place.
        seed: of the run.
        epoch: counts from 1.
        positions: places in the global order, int64 [B]; -1 for a filler.
        indices: of the images, int64 [B].
    """
    values = uniforms(seed, epoch, np.maximum(positions, 0), DRAWS)
    if augmentation.alternate_flip:
        values[:, FLIP] = (hashed(ALTERNATE, seed, 0, indices) + np.uint64(epoch)) % np.uint64(2)
    return values


def frame(pixels: Pixels, preprocess: Preprocess, augmentation: Augmentation, draws: Draws) -> Pixels:
    """Cut a training input uint8 [size, size, 3] from what `pictures.Pictures` gives for an image.

    Args:
        pixels: the picture, or already the frame where nothing is cut at random.
        preprocess: the deterministic transform, whose size, resize rule and interpolation apply here too.
        augmentation: what may happen.
        draws: uniform numbers [DRAWS] of this image in this epoch.
    """
    if not augmentation.crops(preprocess.size):
        return pixels
    return _random_resized_crop(pixels, preprocess, SMALLEST_CROP[augmentation.kind], draws[CROP])


def vary(images: torch.Tensor, preprocess: Preprocess, augmentation: Augmentation, draws: Draws) -> torch.Tensor:
    """Shift, mirror, turn, recolour and cover a batch of frames: uint8 [B, S, S, 3], on any device but for `strong`.

    Args:
        images: uint8 [B, S, S, 3]; may be overwritten.
        preprocess: its mean colour covers.
        augmentation: what may happen.
        draws: uniform numbers [B, DRAWS].
    """
    side, fill = images.shape[1], _on(np.array(preprocess.fill, dtype=np.uint8), images)
    mirrored = draws[:, FLIP] < 0.5 if augmentation.flip else np.zeros(len(images), dtype=bool)
    if side <= SMALL_IMAGE and augmentation.kind != "none":
        reach = 0 if augmentation.kind == "light" else min(PADDING, side - 1)
        images = _shifted(images, (draws[:, CROP][:, 2:] * (2 * reach + 1)).astype(np.int64) - reach, mirrored)
    elif images.is_cuda:
        images = torch.where(_on(mirrored[:, None, None, None], images), images.flip(2), images)
    else:
        for row in np.flatnonzero(mirrored).tolist():  # at 224 px ten times sooner than all at once
            images[row] = images[row].flip(1)
    if augmentation.rotate:
        images = _rotated(images, (2 * draws[:, ROTATE] - 1) * augmentation.rotate, fill)
    if augmentation.color_jitter:
        images = _recoloured(images, 1 + (2 * draws[:, JITTER] - 1) * augmentation.color_jitter)
    if augmentation.kind == "strong":
        each = zip(images.numpy(), draws[:, TRIVIAL], strict=True)
        images = torch.from_numpy(np.stack([_trivial_augment(one, preprocess.fill, values) for one, values in each]))
        images = _covered(images, _erasing_boxes(side, draws[:, ERASE]), fill)
    if augmentation.cutout:
        corners = (draws[:, CUTOUT] * side).astype(np.int64) - augmentation.cutout // 2
        images = _covered(images, np.hstack([corners, corners + augmentation.cutout]), fill)
    return images


def _random_resized_crop(pixels: Pixels, preprocess: Preprocess, smallest: float, draws: Draws) -> Pixels:
    """Cut a box of random area, shape (3:4 to 4:3) and place, and resize it to the input."""
    if preprocess.rule == "pad":
        image = Image.fromarray(pixels)
        if max(image.size) ** 2 > MOST_PIXELS:  # the borders of a strip of 1 x 60000 would fill gigabytes
            image = image.resize(scaled_size(*image.size, longer=4 * preprocess.size))
        pixels = np.asarray(with_borders(image, max(image.size), preprocess.fill))
    height, width = pixels.shape[:2]
    area = smallest + draws[0] * (1 - smallest)
    ratio = math.exp((2 * draws[1] - 1) * math.log(4 / 3))
    # "squash" keeps the distortion of the deterministic transform: the box has the picture's own shape.
    base = (width, height) if preprocess.rule == "squash" else (math.sqrt(width * height),) * 2
    box_width, box_height = base[0] * math.sqrt(area * ratio), base[1] * math.sqrt(area / ratio)
    shrink = min(1.0, width / box_width, height / box_height)  # to fit, keeping its shape
    box_width, box_height = max(1, round(box_width * shrink)), max(1, round(box_height * shrink))
    left, top = int(draws[2] * (width - box_width + 1)), int(draws[3] * (height - box_height + 1))
    return _resized(pixels[top : top + box_height, left : left + box_width], preprocess.size, preprocess.interpolation)


def _resized(pixels: Pixels, size: int, interpolation: Interpolation) -> Pixels:
    """Resize to a square. torch does it within one level of Pillow and 4 times sooner (0.2 ms for 0.1 megapixels)."""
    if interpolation not in ("bilinear", "bicubic"):
        return np.asarray(Image.fromarray(pixels).resize((size, size), RESAMPLING[interpolation]))
    # A dense copy of the box, and the batch axis before the axes are turned: else torch does not see channels last.
    planes = torch.from_numpy(np.array(pixels))[None].permute(0, 3, 1, 2)
    scaled = F.interpolate(planes, (size, size), mode=interpolation, antialias=True)
    resized: Pixels = scaled[0].permute(1, 2, 0).numpy()
    return resized


def _on(values: npt.NDArray[np.generic], like: torch.Tensor) -> torch.Tensor:
    return put(np.ascontiguousarray(values), like.device)


def _shifted(images: torch.Tensor, shifts: Integers, mirrored: npt.NDArray[np.bool_]) -> torch.Tensor:
    """Shift by up to `PADDING` pixels (x and y, [B, 2]) and mirror some; the mirrored border comes in from outside.

    One gather of whole pixels: 160,000 images of 32 px a second on one CPU thread.
    """
    count, side = images.shape[:2]
    reach = torch.arange(side, device=images.device)
    columns, rows = (_on(shifts, images)[:, :, None] + reach).unbind(1)
    columns = torch.where(_on(mirrored[:, None], images), columns.flip(1), columns)
    columns, rows = ((side - 1) - ((side - 1) - inside.abs()).abs() for inside in (columns, rows))
    rows = rows + side * torch.arange(count, device=images.device)[:, None]
    places = rows[:, :, None] * side + columns[:, None, :]
    return images.reshape(-1, 3).index_select(0, places.view(-1)).view_as(images)


def _rotated(images: torch.Tensor, degrees: Draws, fill: torch.Tensor) -> torch.Tensor:
    """Turn each image counter-clockwise about its centre, bilinear; `fill` comes in from outside."""
    cosine, sine, zero = np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), np.zeros(len(degrees))
    turns = np.stack([cosine, -sine, zero, sine, cosine, zero], axis=1).reshape(-1, 2, 3)
    grid = F.affine_grid(_on(turns.astype(np.float32), images), [len(images), 3, *images.shape[1:3]], False)
    planes = (images.float() - fill).permute(0, 3, 1, 2)
    turned = F.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (turned.permute(0, 2, 3, 1) + fill).round().clamp(0, 255).to(torch.uint8)


def _recoloured(images: torch.Tensor, factors: Draws) -> torch.Tensor:
    """Scale brightness, contrast (about the mean grey) and saturation (about the pixel's grey), in this order."""
    brightness, contrast, saturation = _on(factors.astype(np.float32), images).view(-1, 3, 1, 1, 1).unbind(1)
    levels = (images * brightness).clamp(0, 255)
    levels = torch.lerp(_grey(levels).mean((1, 2, 3), keepdim=True), levels, contrast).clamp(0, 255)
    levels = torch.lerp(_grey(levels), levels, saturation).clamp(0, 255)
    return levels.round().to(torch.uint8)


def _grey(levels: torch.Tensor) -> torch.Tensor:
    red, green, blue = levels[..., 0:1], levels[..., 1:2], levels[..., 2:3]
    return 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R 601, as Pillow's


def _erasing_boxes(side: int, draws: Draws) -> Integers:
    """Return boxes of 2 % to 33 % of the area, shape 0.3 to 3.3, for one image in four; empty ones for the others."""
    area = (0.02 + 0.31 * draws[:, 1]) * side**2
    ratio = np.exp(math.log(0.3) + draws[:, 2] * math.log(3.3 / 0.3))
    sizes = np.minimum(side, np.rint(np.sqrt(np.stack([area * ratio, area / ratio], axis=1)))).astype(np.int64)
    corners = (draws[:, 3:5] * (side - sizes + 1)).astype(np.int64)
    return np.hstack([corners, corners + sizes * (draws[:, :1] < ERASE_PROBABILITY)])


def _covered(images: torch.Tensor, boxes: Integers, fill: torch.Tensor) -> torch.Tensor:
    """Cover boxes int64 [B, 4] (top, left, bottom, right) with a colour."""
    reach = np.arange(images.shape[1])
    down, across = ((boxes[:, [axis]] <= reach) & (reach < boxes[:, [axis + 2]]) for axis in (0, 1))
    return torch.where(_on((down[:, :, None] & across[:, None, :])[..., None], images), fill, images)


def _affine(*, x: float = 0, y: float = 0, shear_x: float = 0, shear_y: float = 0) -> tuple[float, ...]:
    return (1, shear_x, x, shear_y, 1, y)


def _trivial_augment(pixels: Pixels, fill: tuple[int, int, int], draws: Draws) -> Pixels:
    """Apply one of 14 operations at one of 31 strengths."""
    image = Image.fromarray(pixels)
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
    return np.asarray(operations[int(draws[0] * len(operations))]())
