"""Random erasing: a box of some images is covered (Zhong et al. 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from imgcls.config import BatchConfig
from imgcls.data.augment.cutout import covered
from imgcls.data.augment.operation import Draws, FrameOperation
from imgcls.schema import Preprocess

PROBABILITY = 0.25


@dataclass(frozen=True)
class Erasing(FrameOperation):
    """Cover 2 % to 33 % of one image in four, in boxes of shape 0.3 to 3.3, with the mean colour."""

    name = "erasing"
    draws = 5

    fill: tuple[int, int, int]

    def apply(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return a batch uint8 [B, S, S, 3], some of it covered; what is not has an empty box."""
        side, drawn = images.shape[1], draws[self.name]
        area = (0.02 + 0.31 * drawn[:, 1]) * side**2
        ratio = np.exp(math.log(0.3) + drawn[:, 2] * math.log(3.3 / 0.3))
        sizes = np.minimum(side, np.rint(np.sqrt(np.stack([area * ratio, area / ratio], axis=1)))).astype(np.int64)
        corners = (drawn[:, 3:5] * (side - sizes + 1)).astype(np.int64)
        return covered(images, np.hstack([corners, corners + sizes * (drawn[:, :1] < PROBABILITY)]), self.fill)


def operation(asked: BatchConfig, preprocess: Preprocess) -> Erasing:
    """Return the operation."""
    return Erasing(preprocess.fill)
