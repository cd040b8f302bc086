"""torchvision data sets by name, downloaded when they are missing. One function per name in `registry.DATASETS`.

Arrays stay arrays, files stay files; nothing is decoded by torchvision.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torchvision import datasets

from imgcls.data.images import ArrayImages, FileImages, Images
from imgcls.data.listing import Listing, Source
from imgcls.download import TIMEOUT, open_url
from imgcls.errors import DataError, missing_extra

DIGITS = tuple("0123456789")


def cifar10(root: str) -> Source:
    """CIFAR-10: 50,000 + 10,000 images of 32 x 32 in 10 classes."""
    return _source("cifar10", root, "cifar-10-batches-py", _cifar, datasets.CIFAR10, datasets.CIFAR10.url)


def cifar100(root: str) -> Source:
    """CIFAR-100: 50,000 + 10,000 images of 32 x 32 in 100 classes."""
    return _source("cifar100", root, "cifar-100-python", _cifar, datasets.CIFAR100, datasets.CIFAR100.url)


def mnist(root: str) -> Source:
    """MNIST: 60,000 + 10,000 grey digits of 28 x 28."""
    return _source("mnist", root, "MNIST/raw", _mnist, datasets.MNIST, _first_file(datasets.MNIST))


def fashion_mnist(root: str) -> Source:
    """Fashion-MNIST: 60,000 + 10,000 grey garments of 28 x 28 in 10 classes."""
    url = _first_file(datasets.FashionMNIST)
    return _source("fashion-mnist", root, "FashionMNIST/raw", _mnist, datasets.FashionMNIST, url)


def svhn(root: str) -> Source:
    """SVHN, cropped: 73,257 + 26,032 house-number digits of 32 x 32 (needs scipy)."""
    return _source("svhn", root, "{split}_32x32.mat", _svhn, datasets.SVHN, datasets.SVHN.split_list["train"][0])


def stl10(root: str) -> Source:
    """STL-10: 5,000 + 8,000 images of 96 x 96 in 10 classes."""
    return _source("stl10", root, "stl10_binary", _stl10, datasets.STL10, datasets.STL10.url)


def food101(root: str) -> Source:
    """Food-101: 75,750 + 25,250 photographs in 101 classes."""
    return _source("food101", root, "food-101", _food101, datasets.Food101, datasets.Food101._URL)


def oxford_pets(root: str) -> Source:
    """Oxford-IIIT Pets: 3,680 + 3,669 photographs in 37 breeds."""
    return _source(
        "oxford-pets", root, "oxford-iiit-pet", _pets, datasets.OxfordIIITPet, datasets.OxfordIIITPet._RESOURCES[0][0]
    )


def flowers102(root: str) -> Source:
    """Oxford Flowers: 1,020 + 1,020 (validation) + 6,149 photographs in 102 classes (needs scipy)."""
    url = datasets.Flowers102._download_url_prefix + datasets.Flowers102._file_dict["image"][0]
    return _source("flowers102", root, "flowers-102", _flowers, datasets.Flowers102, url, ("train", "val", "test"))


def _first_file(dataset: Any) -> str:
    return str(dataset.mirrors[0] + dataset.resources[0][0])  # a mirror's folder itself answers with an error


Parts = tuple[Images, Sequence[int], Sequence[str]]  # pictures, labels, class names


def _cifar(build: Callable[..., Any], split: str) -> Parts:
    data = build(train=split == "train")
    return ArrayImages.of(split, data.data), data.targets, data.classes


def _mnist(build: Callable[..., Any], split: str) -> Parts:
    data = build(train=split == "train")
    return ArrayImages.of(split, data.data.numpy()), data.targets.tolist(), data.classes


def _svhn(build: Callable[..., Any], split: str) -> Parts:
    data = build(split=split)
    return _channels_first(split, data.data), data.labels, DIGITS


def _stl10(build: Callable[..., Any], split: str) -> Parts:
    data = build(split=split)
    if not hasattr(data, "classes"):
        raise DataError(f"stl10: class_names.txt is missing in {data.root}/{data.base_folder}: put it there")
    return _channels_first(split, data.data), data.labels, data.classes


def _food101(build: Callable[..., Any], split: str) -> Parts:
    data = build(split=split)
    return _files(data._images_folder, data._image_files), data._labels, data.classes


def _pets(build: Callable[..., Any], split: str) -> Parts:
    data = build(split="trainval" if split == "train" else "test")
    return _files(data._images_folder, data._images), data._labels, data.classes


def _flowers(build: Callable[..., Any], split: str) -> Parts:
    data = build(split=split)
    return _files(data._images_folder, data._image_files), data._labels, data.classes


def _channels_first(split: str, pixels: npt.NDArray[np.uint8]) -> ArrayImages:
    return ArrayImages.of(split, pixels.transpose(0, 2, 3, 1))


def _files(folder: Path, paths: Sequence[Path]) -> FileImages:
    return FileImages.of(str(folder), [os.path.relpath(path, folder) for path in paths])


def _source(
    name: str,
    root: str,
    marker: str,
    read: Callable[[Callable[..., Any], str], Parts],
    dataset: Callable[..., Any],
    url: str,
    splits: tuple[str, ...] = ("train", "test"),
) -> Source:
    """Describe a data set; `marker` is the file or folder below `root` that shows it is there."""

    def listing(split: str) -> Listing:
        present = os.path.exists(os.path.join(root, marker.format(split=split)))
        images, labels, classes = read(partial(_build, name, root, present, dataset, url), split)
        names = tuple(str(class_name) for class_name in classes)
        return Listing(f"{name}/{split}", images, np.asarray(labels, dtype=np.int64), names)

    return Source(f"{name} in {root}", {split: partial(listing, split) for split in splits}, dataset=name)


def _build(name: str, root: str, present: bool, dataset: Callable[..., Any], url: str, **options: Any) -> Any:
    """Open a data set, downloading it when nothing of it is there.

    Raises:
        DataError: damaged files, or a failed download; within seconds when there is no network.
        UsageError: scipy is missing.
    """
    try:
        if present:
            return dataset(root, download=False, **options)
        open_url(url).close()  # says within seconds that there is no network; torchvision would hang
        with contextlib.redirect_stdout(sys.stderr), _socket_timeout():  # torchvision reports progress on stdout
            return dataset(root, download=True, **options)
    except ModuleNotFoundError as error:
        raise missing_extra((error.name or "scipy").partition(".")[0], "datasets") from error
    except Exception as error:  # torchvision's parsers raise anything on damaged files
        reason = " ".join(str(error).split())
        if present:
            raise DataError(f"{name}: files in {root} are damaged or incomplete ({reason}): replace them") from error
        raise DataError(f"{name}: not in {root}, and the download failed ({reason}): put its files there") from error


@contextlib.contextmanager
def _socket_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
