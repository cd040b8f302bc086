"""The pictures that everything is measured on, in a temporary folder; drawn where the archives are not at hand."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOGRAPH, LARGE = (500, 375), (4000, 3000)


@dataclass
class Material:
    """Made when first asked for.

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
        archive = self.archives / "hymenoptera.tar"
        root = self.folder / "hymenoptera_data"
        if not archive.is_file():
            self.drawn.append(archive.name)
            for split, count in (("train", 244), ("val", 153)):
                _draw(root / split, ("ants", "bees"), count, PHOTOGRAPH)
            return root
        with tarfile.open(archive) as tar:
            tar.extractall(self.folder, filter="data")
        return root

    @cached_property
    def cifar(self) -> Path:
        """train/ and val/ with ten classes: 5,000 and 1,000 pictures of 32 px."""
        return self._cifar("cifar", {"train": 500, "test": 100})

    @cached_property
    def whole_cifar(self) -> Path:
        """The same with all 50,000 and 10,000."""
        return self._cifar("whole-cifar", {"train": 5000, "test": 1000})

    def photographs_again(self, copies: int) -> Path:
        """Return a folder of two classes with the training photographs several times."""
        return self._linked(f"photographs-{copies}", _pictures(self.photographs / "train"), copies)

    def large(self, copies: int) -> Path:
        """Return a folder of two classes with 16 photographs of 12 megapixels several times."""
        return self._linked(f"large-{copies}", _pictures(self._large), copies)

    @cached_property
    def _large(self) -> Path:
        """Mosaics of 8 x 8 photographs, which have the detail of a large one; enlarged ones would decode faster."""
        paths, root = _pictures(self.photographs / "train"), self.folder / "large"
        tiles = [Image.open(path).convert("RGB").resize(PHOTOGRAPH) for path in paths[:128]]
        for number in range(16):
            mosaic = Image.new("RGB", LARGE)
            for place in range(64):
                corner = (place % 8 * PHOTOGRAPH[0], place // 8 * PHOTOGRAPH[1])
                mosaic.paste(tiles[(5 * number + place) % len(tiles)], corner)
            path = root / f"class{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            mosaic.save(path, quality=90)
        return root

    def _linked(self, name: str, paths: Sequence[Path], copies: int) -> Path:
        root = self.folder / name
        if not root.is_dir():
            for path in paths:
                (root / path.parent.name).mkdir(parents=True, exist_ok=True)
                for copy in range(copies):
                    os.link(path, root / path.parent.name / f"{path.stem}-{copy}.jpg")
        return root

    def _cifar(self, name: str, wanted: dict[str, int]) -> Path:
        root, archive = self.folder / name, self.archives / "cifar10-jpeg.tar.xz"
        if not archive.is_file():
            self.drawn.append(archive.name)
            for split, count in wanted.items():
                names = [f"class{number}" for number in range(10)]
                _draw(root / split.replace("test", "val"), names, 10 * count, (32, 32))
            return root
        taken: Counter[tuple[str, str]] = Counter()
        with tarfile.open(archive, "r|xz") as tar:  # 60,000 members: read once and only as far as needed
            for member in tar:
                parts = Path(member.name).parts
                content = tar.extractfile(member)
                if content is None or taken[parts[1], parts[2]] == wanted[parts[1]]:
                    continue
                taken[parts[1], parts[2]] += 1
                path = root / parts[1].replace("test", "val") / parts[2] / parts[3]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
                if taken.total() == 10 * sum(wanted.values()):
                    break
        return root


def _pictures(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jpg"))


def _draw(folder: Path, classes: Sequence[str], count: int, size: tuple[int, int]) -> None:
    """Write pictures of smooth coloured patches: noise would make the files several times as large as photographs."""
    generator = np.random.default_rng(0)
    for number in range(count):
        patches = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        path = folder / classes[number % len(classes)] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        patches.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
