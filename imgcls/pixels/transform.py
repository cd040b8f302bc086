"""`Preprocess` turned into pixels: the deterministic transform that validation and every other command share.

With the default rule its pixels equal torchvision's `Resize(R)` and `CenterCrop(S)` on PIL images, which a test
holds. Knows no augmentation and no tensors.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from imgcls.pixels.decode import Pixels, decode
from imgcls.schema import Preprocess

MOST_PIXELS = 178_956_970  # what Pillow accepts from a file; a strip of 1 x 60000 would be resized to far more
RESAMPLING = {name.lower(): Image.Resampling[name] for name in Image.Resampling.__members__}


def read(source: str, preprocess: Preprocess) -> Pixels:
    """Decode a file and return the network input: uint8 [size, size, 3], levels 0..255.

    Raises:
        ImageError: as `decode`.
    """
    return transform(decode(source, shorter=preprocess.shorter), preprocess)


def transform(pixels: Pixels, preprocess: Preprocess) -> Pixels:
    """Return the network input of an RGB picture uint8 [height, width, 3]: uint8 [size, size, 3]."""
    if preprocess.resize == preprocess.size == pixels.shape[0] == pixels.shape[1]:
        return pixels  # every rule and every interpolation would leave it as it is
    return np.asarray(_square(Image.fromarray(pixels), preprocess))


def _square(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Bring a picture to size x size pixels by the resize rule."""
    size, resample = preprocess.size, RESAMPLING[preprocess.interpolation]
    width, height = image.size
    if preprocess.rule == "squash":
        return image.resize((size, size), resample)
    if preprocess.rule == "pad":
        return with_borders(image.resize(scaled_size(width, height, longer=size), resample), size, preprocess.fill)
    scaled = scaled_size(width, height, shorter=preprocess.resize)
    if math.prod(scaled) > MOST_PIXELS:
        return _square(_middle(image), preprocess)
    resized = image.resize(scaled, resample)
    # torchvision's CenterCrop rounds half to even, so does Python.
    left, top = round((resized.width - size) / 2.0), round((resized.height - size) / 2.0)
    return resized.crop((left, top, left + size, top + size))


def _middle(image: Image.Image) -> Image.Image:
    """Cut the middle of a picture down to twice as long as wide: a strip has its crop there, with a margin."""
    width, height = image.size
    across, down = min(width, 2 * height), min(height, 2 * width)
    left, top = (width - across) // 2, (height - down) // 2
    return image.crop((left, top, left + across, top + down))


def with_borders(image: Image.Image, side: int, fill: tuple[int, int, int]) -> Image.Image:
    """Centre a picture on a square of `side` pixels of the colour `fill`."""
    canvas = Image.new("RGB", (side, side), fill)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def scaled_size(width: int, height: int, *, shorter: int = 0, longer: int = 0) -> tuple[int, int]:
    """Return (width, height) with one side as given and the other truncated as torchvision's Resize does."""
    if shorter:
        if width <= height:
            return shorter, max(1, int(shorter * height / width))
        return max(1, int(shorter * width / height)), shorter
    if width >= height:
        return longer, max(1, int(longer * height / width))
    return max(1, int(longer * width / height)), longer
