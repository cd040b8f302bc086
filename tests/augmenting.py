"""Pictures and draws for the tests of augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from imgcls.config import BatchConfig
from imgcls.data.augment.operation import Draws
from imgcls.data.augment.recipe import Augmentation
from imgcls.pixels.transform import transform
from imgcls.schema import Preprocess

SMALL, LARGE = Preprocess(size=32, resize=32), Preprocess(size=48, resize=54)
KINDS = ("none", "light", "standard", "strong")

# With these nothing changes: the largest crop, no shift, no flip, no turn, the first change of TrivialAugment, no box.
NEUTRAL = {
    "crop": [1.0, 0.5, 0.5, 0.5],
    "shift": [0.5, 0.5],
    "flip": [0.9],
    "rotate": [0.5],
    "color_jitter": [0.5, 0.5, 0.5],
    "trivial_augment": [0.0, 0.5, 0.5],
    "erasing": [0.9, 0.5, 0.5, 0.5, 0.5],
    "cutout": [0.5, 0.5],
}


def augmentation(preprocess: Preprocess, **asked: Any) -> Augmentation:
    """What these settings ask for; nothing without any."""
    settings: dict[str, Any] = {"augment": "none", "flip": False} | asked
    return Augmentation.of(BatchConfig(**settings), preprocess)


def still(**changed: list[float]) -> Draws:
    """Draws of one image that change nothing, but for those given."""
    return {name: np.array([values], dtype=np.float64) for name, values in (NEUTRAL | changed).items()}


def drawn(augmented: Augmentation, count: int, seed: int = 0) -> Draws:
    """The draws of the first images of the first epoch."""
    return augmented.draw(seed, 1, np.arange(count), np.arange(count))


def one(draws: Draws, row: int) -> Draws:
    """The draws of one image of a batch."""
    return {name: values[[row]] for name, values in draws.items()}


def augment(
    image: Image.Image, preprocess: Preprocess, augmented: Augmentation, draws: Draws, row: int = 0
) -> npt.NDArray[np.uint8]:
    """One image on its way into a batch."""
    pixels = np.asarray(image)
    if augmented.shorter is None:
        pixels = transform(pixels, preprocess)
    framed = torch.from_numpy(np.array(augmented.frame(pixels, draws, row)))
    varied: npt.NDArray[np.uint8] = augmented.vary(framed[None], one(draws, row))[0].numpy()
    return varied


def photo(width: int = 32, height: int = 32) -> Image.Image:
    """A coloured gradient: any crop, flip, turn or change of colour shows."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x / 2 - y / 2], axis=2).astype(np.uint8))


def frames(preprocess: Preprocess, count: int) -> torch.Tensor:
    """Different frames, uint8 [count, S, S, 3]."""
    side = preprocess.size
    waves = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return torch.from_numpy(np.stack([np.asarray(Image.fromarray(wave).resize((side, side))) for wave in waves]))
