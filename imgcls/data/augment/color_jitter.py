"""Random brightness, contrast and saturation, as Pillow's enhancers change them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from imgcls.config import BatchConfig
from imgcls.data.augment.operation import Draws, FrameOperation, on
from imgcls.schema import Preprocess


@dataclass(frozen=True)
class ColorJitter(FrameOperation):
    """Scale brightness, contrast (about the mean grey) and saturation (about the pixel's grey), in this order."""

    name = "color_jitter"
    draws = 3

    strength: float  # factors lie between 1 - strength and 1 + strength

    def apply(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return a recoloured batch uint8 [B, S, S, 3]."""
        factors = 1 + (2 * draws[self.name] - 1) * self.strength
        brightness, contrast, saturation = on(factors.astype(np.float32), images).view(-1, 3, 1, 1, 1).unbind(1)
        levels = (images * brightness).clamp(0, 255)
        levels = torch.lerp(_grey(levels).mean((1, 2, 3), keepdim=True), levels, contrast).clamp(0, 255)
        levels = torch.lerp(_grey(levels), levels, saturation).clamp(0, 255)
        return levels.round().to(torch.uint8)

    def __str__(self) -> str:
        return f"color jitter {self.strength:g}"


def operation(asked: BatchConfig, preprocess: Preprocess) -> ColorJitter:
    """Return the colour jitter that was asked for."""
    return ColorJitter(asked.color_jitter)


def _grey(levels: torch.Tensor) -> torch.Tensor:
    red, green, blue = levels[..., 0:1], levels[..., 1:2], levels[..., 2:3]
    return 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R 601, as Pillow's
