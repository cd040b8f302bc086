"""Which operations training images go through, in which order and for which settings, and what follows from that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from imgcls.config import SMALL_IMAGE, BatchConfig
from imgcls.data.augment.operation import Draws, FrameOperation, Operation, PictureOperation
from imgcls.data.draws import Integers
from imgcls.pixels.decode import Pixels
from imgcls.registry import resolve
from imgcls.schema import Preprocess


def _shifts(asked: BatchConfig, small: bool) -> bool:
    return small and asked.augment in ("standard", "strong")


# What happens to an image, in this order: the operation's module, and for which settings it takes part.
# `small`: inputs of up to SMALL_IMAGE pixels, which are not cut to pieces.
OPERATIONS: dict[str, Callable[[BatchConfig, bool], bool | None]] = {
    "crop": lambda asked, small: asked.augment != "none" and not small,
    "shift": lambda asked, small: _shifts(asked, small),  # mirrors too, if `flip` is asked for
    "flip": lambda asked, small: asked.flip and not _shifts(asked, small),
    "rotate": lambda asked, small: asked.rotate > 0,
    "color_jitter": lambda asked, small: asked.color_jitter > 0,
    "trivial_augment": lambda asked, small: asked.augment == "strong",
    "erasing": lambda asked, small: asked.augment == "strong",
    "cutout": lambda asked, small: asked.cutout > 0,
}


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image on its way to one network input.

    A picture becomes a square frame (`frame`, one by one, from files or memory), and frames are varied in batches
    (`vary`, on the CPU or a GPU), both as `draw` decided.

    Attributes:
        name: of the recipe, and what of it is left out.
        operations: in their order, those that do something.
    """

    name: str
    operations: tuple[Operation, ...]

    @classmethod
    def of(cls, asked: BatchConfig, preprocess: Preprocess) -> Augmentation:
        """Return what was asked for.

        Args:
            asked: the settings, `flip` decided: None counts as no.
            preprocess: the deterministic transform, whose size, resize rule, interpolation and fill apply here too.
        """
        small = preprocess.size <= SMALL_IMAGE
        modules = [f"imgcls.data.augment.{name}" for name, takes_part in OPERATIONS.items() if takes_part(asked, small)]
        operations = tuple(resolve(f"{module}:operation")(asked, preprocess) for module in modules)
        return cls(asked.augment if asked.flip or asked.augment == "none" else f"{asked.augment}, no flip", operations)

    def __str__(self) -> str:
        return ", ".join([self.name, *filter(None, map(str, self.operations))])

    @property
    def is_identity(self) -> bool:
        """Whether every epoch sees the same pixels."""
        return not self.operations

    @property
    def is_random(self) -> bool:
        """Whether other `draws.uniforms` would give other pixels."""
        return any(operation.is_random for operation in self.operations)

    @property
    def on_gpu(self) -> bool:
        """Whether `vary` may be given frames on a GPU."""
        return all(operation.on_gpu for operation in self._of_frames)

    @property
    def shorter(self) -> int | None:
        """The shorter side that `frame` needs of a picture, pixels; None: it is given the frame itself."""
        return max((operation.shorter for operation in self._of_pictures), default=None)

    def draw(self, seed: int, epoch: int, positions: Integers, indices: Integers) -> Draws:
        """Return the draws of one batch, float64 [B, n] by the operations' names.

        Args:
            seed: of the run.
            epoch: counts from 1.
            positions: in the global order, int64 [B]; -1 for a filler.
            indices: of the images, int64 [B].
        """
        draws: Draws = {}
        for operation in self.operations:
            draws |= operation.draw(seed, epoch, np.maximum(positions, 0), indices)
        return draws

    def frame(self, pixels: Pixels, draws: Draws, row: int) -> Pixels:
        """Return the frame uint8 [S, S, 3] of a picture.

        Args:
            pixels: uint8 [height, width, 3]; the frame itself where `shorter` is None.
            draws: of the batch.
            row: of this picture in the batch.
        """
        for operation in self._of_pictures:
            pixels = operation.apply(pixels, {name: drawn[row] for name, drawn in draws.items()})
        return pixels

    def vary(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return a batch of frames uint8 [B, S, S, 3], changed; the one that is given may be overwritten."""
        for operation in self._of_frames:
            images = operation.apply(images, draws)
        return images

    @property
    def _of_pictures(self) -> list[PictureOperation]:
        return [operation for operation in self.operations if isinstance(operation, PictureOperation)]

    @property
    def _of_frames(self) -> list[FrameOperation]:
        return [operation for operation in self.operations if isinstance(operation, FrameOperation)]
