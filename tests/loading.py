"""Loaders of small data. A module of its own, for the same reason as drawing.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import augmenting
import numpy as np
import torch
from drawing import draw_tree

from imgcls.data import disk_cache
from imgcls.data.batch import Batch
from imgcls.data.cache import Store, in_memory
from imgcls.data.class_folders import read_split
from imgcls.data.files import FileLoader
from imgcls.data.images import ArrayImages
from imgcls.data.listing import Listing
from imgcls.data.order import Order
from imgcls.data.pictures import Pictures
from imgcls.schema import Preprocess

PREPROCESS = Preprocess(size=16, resize=16)
LARGE = Preprocess(size=48, resize=54)
Asked = dict[str, Any] | None  # settings of an augmentation; None: evaluated images
STANDARD: Asked = {"augment": "standard", "flip": True}
STRONG: Asked = {"augment": "strong", "flip": True}
AUGMENTATIONS: dict[str, Asked] = {
    "evaluated": None,
    "none": {"augment": "none"},
    "flip": {"augment": "none", "flip": True},
    "light": {"augment": "light", "flip": True},
    "standard": STANDARD,
    "strong": STRONG,
    "all": {
        "augment": "standard",
        "flip": True,
        "rotate": 20,
        "color_jitter": 0.4,
        "alternate_flip": True,
        "cutout": 5,
    },
}


def listing(count: int) -> Listing:
    """Return pictures in memory, all different, of three classes in turn."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % 3
    return Listing("set/train", ArrayImages.of("train", pixels), labels, ("ant", "bee", "cat"))


def in_files(root: Path) -> Listing:
    """Return ten pictures in files, of two shapes."""
    draw_tree(root, {"ant": 5}, size=(130, 100))
    return read_split(str(draw_tree(root, {"bee": 5}, size=(50, 60), seed=1)))


def in_arrays(root: Path) -> Listing:
    """Return ten pictures in arrays; `root` is not needed."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 56, 56, 3), dtype=np.uint8)
    return Listing("arrays", ArrayImages.of("train", pixels), np.arange(10, dtype=np.int64) % 2, ("ant", "bee"))


LISTINGS: dict[str, Callable[[Path], Listing]] = {"files": in_files, "arrays": in_arrays}


def loader(
    images: Listing,
    batch_size: int,
    asked: Asked = None,
    *,
    preprocess: Preprocess = PREPROCESS,
    workers: int = 0,
    rank: int = 0,
    **order: Any,
) -> FileLoader:
    """Return batches of a listing, shuffled when they are augmented; `order` as `Order` has it."""
    augmentation = None if asked is None else augmenting.augmentation(preprocess, **asked)
    return FileLoader(
        Pictures(images.images, preprocess, augmentation),
        images.labels,
        Order(len(images.images), batch_size, **{"shuffle": augmentation is not None} | order),
        rank=rank,
        workers=workers,
    )


def decoded(files: FileLoader, where: str = "memory") -> Store:
    """Return the pictures of a loader, decoded."""
    if where == "disk":
        return disk_cache.write(files.pictures, 1, lambda done: None)
    store = in_memory(files.pictures, 1, files.pictures.bytes(), lambda done: None)
    assert store is not None
    return store


def equal(first: Batch, second: Batch) -> bool:
    """Tell whether two batches are equal bit by bit."""
    return all(torch.equal(one, other) for one, other in zip(parts(first), parts(second), strict=True))


def parts(batch: Batch) -> tuple[torch.Tensor, ...]:
    """Return images, labels and which are real."""
    return batch.images, batch.labels, batch.real
