"""Cutout: a square of each image is covered (DeVries and Taylor 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from imgcls.config import BatchConfig
from imgcls.data.augment.operation import Draws, FrameOperation, colour, on
from imgcls.data.draws import Integers
from imgcls.schema import Preprocess


@dataclass(frozen=True)
class Cutout(FrameOperation):
    """Cover a square, of which the middle is within the picture, with the mean colour."""

    name = "cutout"
    draws = 2

    side: int  # pixels
    fill: tuple[int, int, int]

    def apply(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return a covered batch uint8 [B, S, S, 3]."""
        corners = (draws[self.name] * images.shape[1]).astype(np.int64) - self.side // 2
        return covered(images, np.hstack([corners, corners + self.side]), self.fill)

    def __str__(self) -> str:
        return f"cutout {self.side}"


def operation(asked: BatchConfig, preprocess: Preprocess) -> Cutout:
    """Return the cutout that was asked for."""
    return Cutout(asked.cutout, preprocess.fill)


def covered(images: torch.Tensor, boxes: Integers, fill: tuple[int, int, int]) -> torch.Tensor:
    """Cover boxes int64 [B, 4] (top, left, bottom, right), which may reach over the border, with a colour."""
    reach = np.arange(images.shape[1])
    down, across = ((boxes[:, [axis]] <= reach) & (reach < boxes[:, [axis + 2]]) for axis in (0, 1))
    return torch.where(on((down[:, :, None] & across[:, None, :])[..., None], images), colour(fill, images), images)
