"""Turns about the centre by a random angle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from imgcls.config import BatchConfig
from imgcls.data.augment.operation import Draws, FrameOperation, colour, on
from imgcls.schema import Preprocess


@dataclass(frozen=True)
class Rotate(FrameOperation):
    """Turn by up to `degrees` either way, bilinear; `fill` comes in from outside."""

    name = "rotate"
    draws = 1

    degrees: float
    fill: tuple[int, int, int]

    def apply(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return a turned batch uint8 [B, S, S, 3]; a draw above a half turns counter-clockwise."""
        angles = np.radians((2 * draws[self.name][:, 0] - 1) * self.degrees)
        cosine, sine, zero = np.cos(angles), np.sin(angles), np.zeros(len(angles))
        turns = np.stack([cosine, -sine, zero, sine, cosine, zero], axis=1).reshape(-1, 2, 3)
        grid = F.affine_grid(on(turns.astype(np.float32), images), [len(images), 3, *images.shape[1:3]], False)
        fill = colour(self.fill, images)
        planes = (images.float() - fill).permute(0, 3, 1, 2)
        turned = F.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return (turned.permute(0, 2, 3, 1) + fill).round().clamp(0, 255).to(torch.uint8)

    def __str__(self) -> str:
        return f"rotate {self.degrees:g}°"


def operation(asked: BatchConfig, preprocess: Preprocess) -> Rotate:
    """Return the rotation that was asked for."""
    return Rotate(asked.rotate, preprocess.fill)
