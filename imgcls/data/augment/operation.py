"""What an operation of augmentation is: a change of pixels that depends on uniform draws of its own and nothing else.

Knows neither which operations there are nor in which order they come.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from imgcls.data.draws import Integers, uniforms
from imgcls.device import put
from imgcls.pixels.decode import Pixels

Draws = dict[str, npt.NDArray[np.float64]]  # by the operation's name: [B, n] of a batch, [n] of one picture


class Operation(ABC):
    """A random change of training images; what it prints is how the recipe names it where it was asked for by itself.

    Attributes:
        name: of its draws; no two operations of a recipe share one.
        draws: uniform numbers that it needs for each image.
    """

    name: ClassVar[str]
    draws: ClassVar[int]

    @property
    def is_random(self) -> bool:
        """Whether its draws are those of `draws.uniforms`, and so other ones with another `draws.VERSION`."""
        return True

    def draw(self, seed: int, epoch: int, positions: Integers, indices: Integers) -> Draws:
        """Return the draws of one batch by name, float64 [B, draws] in [0, 1).

        Args:
            seed: of the run.
            epoch: counts from 1.
            positions: in the global order, int64 [B].
            indices: of the images, int64 [B].
        """
        return {self.name: uniforms(self.name, seed, epoch, positions, self.draws)}

    def __str__(self) -> str:
        return ""


class PictureOperation(Operation):
    """Makes the frame of one picture at a time, as it comes from a file or from memory."""

    @property
    @abstractmethod
    def shorter(self) -> int:
        """The shorter side that the picture needs, pixels."""

    @abstractmethod
    def apply(self, pixels: Pixels, draws: Draws) -> Pixels:
        """Return the frame uint8 [S, S, 3] of a picture uint8 [height, width, 3]."""


class FrameOperation(Operation):
    """Changes a batch of frames.

    Attributes:
        on_gpu: whether they may lie on a GPU.
    """

    on_gpu: ClassVar[bool] = True

    @abstractmethod
    def apply(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return a batch uint8 [B, S, S, 3] made of another, which may be overwritten."""


def on(values: npt.NDArray[np.generic], images: torch.Tensor) -> torch.Tensor:
    """Return an array on the device of a batch."""
    return put(np.ascontiguousarray(values), images.device)


def colour(fill: tuple[int, int, int], images: torch.Tensor) -> torch.Tensor:
    """Return a colour uint8 [3] on the device of a batch."""
    return on(np.array(fill, dtype=np.uint8), images)
