"""TrivialAugment: one of 14 changes at a random strength (Müller and Hutter 2021, with torchvision's wide ranges)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageEnhance, ImageOps

from imgcls.config import BatchConfig
from imgcls.data.augment.operation import Draws, FrameOperation
from imgcls.pixels.decode import Pixels
from imgcls.schema import Preprocess


@dataclass(frozen=True)
class TrivialAugment(FrameOperation):
    """Change colours or geometry by Pillow, image by image; `fill` comes in from outside."""

    name = "trivial_augment"
    draws = 3
    on_gpu = False

    fill: tuple[int, int, int]

    def apply(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return a changed batch uint8 [B, S, S, 3]."""
        each = zip(images.numpy(), draws[self.name], strict=True)
        return torch.from_numpy(np.stack([_changed(pixels, self.fill, drawn) for pixels, drawn in each]))


def operation(asked: BatchConfig, preprocess: Preprocess) -> TrivialAugment:
    """Return the operation."""
    return TrivialAugment(preprocess.fill)


def _affine(*, x: float = 0, y: float = 0, shear_x: float = 0, shear_y: float = 0) -> tuple[float, ...]:
    return (1, shear_x, x, shear_y, 1, y)


def _changed(pixels: Pixels, fill: tuple[int, int, int], drawn: npt.NDArray[np.float64]) -> Pixels:
    """Apply one of 14 operations at one of 31 strengths."""
    image = Image.fromarray(pixels)
    strength = int(drawn[1] * 31) / 30
    signed = strength if drawn[2] < 0.5 else -strength

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
    return np.asarray(operations[int(drawn[0] * len(operations))]())
