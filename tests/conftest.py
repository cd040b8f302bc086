"""Data that several tests share: real photographs when they are at hand, and small drawn pictures always."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hymenoptera photographs: train/ and val/ with ants/ and bees/ (244 + 153 images, one stray GIF)."""
    archive = SHARED / "hymenoptera.tar"
    if not archive.is_file():
        pytest.skip("hymenoptera.tar is not at hand")
    folder = tmp_path_factory.mktemp("photographs")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "hymenoptera_data"


def draw_tree(root: Path, layout: dict[str, int], size: tuple[int, int] = (32, 32), seed: int = 0) -> Path:
    """Write random PNG images into the folders of `layout`: {"train/cat": 3, ...}; returns `root`."""
    generator = np.random.default_rng(seed)
    for folder, count in layout.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number:03d}.png")
    return root
