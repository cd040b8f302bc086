"""Small drawn data sets. A module of its own, because pytest may load several files named conftest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from imgcls.data.images import FileImages


def draw_tree(root: Path, layout: dict[str, int], size: tuple[int, int] = (32, 32), seed: int = 0) -> Path:
    """Write random PNG images into the folders of `layout`: {"train/cat": 3, ...}; returns `root`."""
    generator = np.random.default_rng(seed)
    for folder, count in layout.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number:03d}.png")
    return root


def draw_six_sizes(root: Path) -> FileImages:
    """Write six pictures 400 pixels wide, each higher than the one before."""
    names = [f"{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (90 + 40 * number, 400, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    return FileImages.of(str(root), names)
