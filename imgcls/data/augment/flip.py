"""Mirrored images: half of them at random, or each in every other epoch (Jordan 2024, airbench)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from imgcls.config import BatchConfig
from imgcls.data.augment.operation import Draws, FrameOperation, on
from imgcls.data.draws import Integers, Stream, hashed
from imgcls.schema import Preprocess


@dataclass(frozen=True)
class Flip(FrameOperation):
    """Mirror left and right."""

    name = "flip"
    draws = 1

    alternate: bool
    by_itself: bool  # not as a part of light, standard or strong

    @property
    def is_random(self) -> bool:
        """An alternating flip is none of `draws.uniforms`."""
        return not self.alternate

    def draw(self, seed: int, epoch: int, positions: Integers, indices: Integers) -> Draws:
        """Return one draw per image; alternating flips depend on the image, not on its place in the order."""
        if not self.alternate:
            return super().draw(seed, epoch, positions, indices)
        odd = (hashed(Stream.ALTERNATE, seed, 0, indices) + np.uint64(epoch)) % np.uint64(2)
        return {self.name: odd.astype(np.float64)[:, None]}

    def mirrored(self, draws: Draws) -> npt.NDArray[np.bool_]:
        """Tell which images are mirrored, bool [B]."""
        return draws[self.name][:, 0] < 0.5

    def apply(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return a batch uint8 [B, S, S, 3], some of it mirrored."""
        mirrored = self.mirrored(draws)
        if images.is_cuda:
            return torch.where(on(mirrored[:, None, None, None], images), images.flip(2), images)
        for row in np.flatnonzero(mirrored).tolist():  # at 224 px ten times sooner than all at once
            images[row] = images[row].flip(1)
        return images

    def __str__(self) -> str:
        words = {"flip": self.by_itself, "alternating flip": self.alternate}
        return ", ".join(word for word, is_said in words.items() if is_said)


def operation(asked: BatchConfig, preprocess: Preprocess) -> Flip:
    """Return the flip of a recipe."""
    return Flip(asked.alternate_flip, by_itself=asked.augment == "none")
