"""The pictures that everything is measured on, in a temporary folder; drawn where the archives are not at hand."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOGRAPH, LARGE = (500, 375), (4000, 3000)
CLASSES, SPLITS = 10, {"train": "train", "test": "val"}  # of CIFAR-10, whose test images validate here


@dataclass
class Material:
    """Each set is made when first asked for.

    Attributes:
        folder: everything is written below it.
        archives: where hymenoptera.tar and cifar10-jpeg.tar.xz are.
        drawn: which of them are not.
    """

    folder: Path
    archives: Path
    drawn: list[str] = field(default_factory=list)

    @cached_property
    def photographs(self) -> Path:
        """train/ and val/ with ants/ and bees/: 244 and 153 photographs of 0.2 megapixels."""
        archive, root = self.archives / "hymenoptera.tar", self.folder / "hymenoptera_data"
        if archive.is_file():
            with tarfile.open(archive) as tar:
                tar.extractall(self.folder, filter="data")
        else:
            self.drawn.append(archive.name)
            for split, count in {"train": 244, "val": 153}.items():
                _draw(root / split, 2, count, PHOTOGRAPH)
        return root

    @cached_property
    def cifar(self) -> Path:
        """train/ and val/ with ten classes: 5,000 and 1,000 pictures of 32 px."""
        return self._cifar("cifar", {"train": 500, "test": 100})

    @cached_property
    def little_cifar(self) -> Path:
        """The same with 1,000 and 200."""
        return self._cifar("little-cifar", {"train": 100, "test": 20})

    @cached_property
    def whole_cifar(self) -> Path:
        """The same with all 50,000 and 10,000."""
        return self._cifar("whole-cifar", {"train": 5000, "test": 1000})

    @cached_property
    def large(self) -> Path:
        """Two classes: 16 mosaics of 8 x 8 photographs, with the detail and size of 12-megapixel photographs."""
        root = self.folder / "large"
        tiles = [Image.open(path).convert("RGB").resize(PHOTOGRAPH) for path in self._training_photographs()[:128]]
        for number in range(16):
            mosaic = Image.new("RGB", LARGE)
            for place in range(64):
                row, column = divmod(place, 8)
                mosaic.paste(tiles[(5 * number + place) % len(tiles)], (column * PHOTOGRAPH[0], row * PHOTOGRAPH[1]))
            mosaic.save(_parent_made(root / f"class{number % 2}" / f"{number}.jpg"), quality=90)
        return root

    def repeated(self, name: str, copies: int) -> Path:
        """Return a folder with each training photograph, or each picture of `large`, several times."""
        root = self.folder / f"{name}-{copies}"
        paths = sorted(self.large.rglob("*.jpg")) if name == "large" else self._training_photographs()
        if not root.is_dir():
            for path in paths:
                for copy in range(copies):
                    os.link(path, _parent_made(root / path.parent.name / f"{path.stem}-{copy}.jpg"))
        return root

    def _training_photographs(self) -> list[Path]:
        return sorted((self.photographs / "train").rglob("*.jpg"))

    def _cifar(self, name: str, wanted: dict[str, int]) -> Path:
        """Unpack that many pictures of each class and split."""
        root, archive = self.folder / name, self.archives / "cifar10-jpeg.tar.xz"
        if not archive.is_file():
            self.drawn.append(archive.name)
            for split, count in wanted.items():
                _draw(root / SPLITS[split], CLASSES, CLASSES * count, (32, 32))
            return root
        taken: Counter[tuple[str, str]] = Counter()
        with tarfile.open(archive, "r|xz") as tar:  # 60,000 members: read once, and only as far as needed
            for member in tar:
                if taken.total() == CLASSES * sum(wanted.values()):
                    break
                content = tar.extractfile(member)
                _, split, *rest = Path(member.name).parts
                if content is not None and taken[split, rest[0]] < wanted[split]:
                    taken[split, rest[0]] += 1
                    _parent_made(root.joinpath(SPLITS[split], *rest)).write_bytes(content.read())
        return root


def _parent_made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _draw(folder: Path, classes: int, count: int, size: tuple[int, int]) -> None:
    """Write pictures of smooth patches: files of noise would be several times as large as photographs."""
    generator = np.random.default_rng(0)
    for number in range(count):
        patches = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        path = _parent_made(folder / f"class{number % classes}" / f"{number:05d}.jpg")
        patches.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
