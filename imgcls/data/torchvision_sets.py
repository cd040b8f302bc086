"""torchvision data sets by name, downloaded when they are missing. One function per name in `registry.DATASETS`.

Arrays stay arrays, files stay files; nothing is decoded by torchvision.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torchvision import datasets

from imgcls.data.archives import Archive, Files, made_anew_by, md5_of, unpack, what_lies_there
from imgcls.data.images import ArrayImages, FileImages, Images
from imgcls.data.listing import Listing, Source
from imgcls.download import TIMEOUT, open_url
from imgcls.errors import DataError, missing_extra
from imgcls.schema import Finding

DIGITS = tuple("0123456789")


def cifar10(root: str) -> Source:
    """CIFAR-10: 50,000 + 10,000 images of 32 x 32 in 10 classes."""
    return _source("cifar10", root, _cifar_files(datasets.CIFAR10), _cifar, datasets.CIFAR10, datasets.CIFAR10.url)


def cifar100(root: str) -> Source:
    """CIFAR-100: 50,000 + 10,000 images of 32 x 32 in 100 classes."""
    return _source("cifar100", root, _cifar_files(datasets.CIFAR100), _cifar, datasets.CIFAR100, datasets.CIFAR100.url)


def mnist(root: str) -> Source:
    """MNIST: 60,000 + 10,000 grey digits of 28 x 28."""
    return _mnist_source("mnist", root, datasets.MNIST)


def fashion_mnist(root: str) -> Source:
    """Fashion-MNIST: 60,000 + 10,000 grey garments of 28 x 28 in 10 classes."""
    return _mnist_source("fashion-mnist", root, datasets.FashionMNIST)


def svhn(root: str) -> Source:
    """SVHN, cropped: 73,257 + 26,032 house-number digits of 32 x 32 (needs scipy)."""
    files = Files("{split}_32x32.mat", ("{split}_32x32.mat",))
    return _source("svhn", root, files, _svhn, datasets.SVHN, datasets.SVHN.split_list["train"][0])


def stl10(root: str) -> Source:
    """STL-10: 5,000 + 8,000 images of 96 x 96 in 10 classes."""
    dataset = datasets.STL10
    parts = (*(name for name, _ in dataset.train_list + dataset.test_list), dataset.class_names_file)
    archive = Archive(dataset.filename, dataset.tgz_md5, "")
    files = Files(dataset.base_folder, _below(dataset.base_folder, *parts), (archive,))
    return _source("stl10", root, files, _stl10, dataset, dataset.url)


def food101(root: str) -> Source:
    """Food-101: 75,750 + 25,250 photographs in 101 classes."""
    dataset = datasets.Food101
    archive = Archive(os.path.basename(dataset._URL), dataset._MD5, "")
    files = Files("food-101", _below("food-101", "images", "meta/train.json", "meta/test.json"), (archive,))
    return _source("food101", root, files, _food101, dataset, dataset._URL)


def oxford_pets(root: str) -> Source:
    """Oxford-IIIT Pets: 3,680 + 3,669 photographs in 37 breeds."""
    dataset, folder = datasets.OxfordIIITPet, "oxford-iiit-pet"
    archives = tuple(Archive(os.path.basename(url), md5, folder) for url, md5 in dataset._RESOURCES)
    parts = _below(folder, "images", "annotations/trainval.txt", "annotations/test.txt")
    return _source("oxford-pets", root, Files(folder, parts, archives), _pets, dataset, dataset._RESOURCES[0][0])


def flowers102(root: str) -> Source:
    """Oxford Flowers: 1,020 + 1,020 (validation) + 6,149 photographs in 102 classes (needs scipy)."""
    dataset, folder = datasets.Flowers102, "flowers-102"
    archives = tuple(Archive(name, md5, folder) for name, md5 in dataset._file_dict.values())
    files = Files(folder, _below(folder, "jpg", "imagelabels.mat", "setid.mat"), archives)
    url = dataset._download_url_prefix + archives[0].name
    return _source("flowers102", root, files, _flowers, dataset, url, ("train", "val", "test"))


def _below(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)


def _cifar_files(dataset: Any) -> Files:
    names = [name for name, _ in dataset.train_list + dataset.test_list] + [dataset.meta["filename"]]
    archive = Archive(dataset.filename, dataset.tgz_md5, "")
    return Files(dataset.base_folder, _below(dataset.base_folder, *names), (archive,))


def _first_file(dataset: Any) -> str:
    return str(dataset.mirrors[0] + dataset.resources[0][0])  # a mirror's folder itself answers with an error


Parts = tuple[Images, Sequence[int], Sequence[str]]  # pictures, labels, class names


def _cifar(build: Callable[..., Any], split: str) -> Parts:
    data = build(train=split == "train")
    return ArrayImages.of(split, data.data), data.targets, data.classes


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
    files: Files,
    read: Callable[[Callable[..., Any], str], Parts],
    dataset: Callable[..., Any],
    url: str,
    splits: tuple[str, ...] = ("train", "test"),
) -> Source:
    """Describe a data set that torchvision reads."""

    def listing(split: str) -> Listing:
        findings: list[Finding] = []
        if files.lacks(root, split):
            unpack(name, root, files, findings)
        present, lacks = files.is_there(root, split), files.lacks(root, split)
        images, labels, classes = read(partial(_build, name, root, files, present, lacks, dataset, url), split)
        names = tuple(str(class_name) for class_name in classes)
        return Listing(f"{name}/{split}", images, np.asarray(labels, dtype=np.int64), names, tuple(findings))

    return Source(f"{name} in {root}", {split: partial(listing, split) for split in splits}, dataset=name)


def _build(
    name: str,
    root: str,
    files: Files,
    present: bool,
    lacks: str | None,
    dataset: Callable[..., Any],
    url: str,
    **options: Any,
) -> Any:
    """Open a data set, downloading it when nothing of it is there.

    Raises:
        DataError: damaged or missing files, or a failed download; within seconds when there is no network.
        UsageError: scipy is missing.
    """
    again = made_anew_by(root, files)
    if present and lacks:
        problem = f"{os.path.dirname(lacks)} lacks {os.path.basename(lacks)}"
        raise DataError(f"{name}: {problem}{what_lies_there(root, files)}: {again or 'put it there'}")
    try:
        if present:
            return dataset(root, download=False, **options)
        return _downloaded(root, dataset, url, options)
    except ModuleNotFoundError as error:
        raise missing_extra((error.name or "scipy").partition(".")[0], "datasets") from error
    except Exception as error:  # torchvision's parsers raise anything on damaged files
        reason = " ".join(str(error).split())
        if present:
            problem = f"files in {root} are damaged or incomplete ({reason})"
            raise DataError(f"{name}: {problem}: {again or 'replace them'}") from error
        raise DataError(
            f"{name}: not in {root}{what_lies_there(root, files)}, and the download failed ({reason}): "
            "put its files there"
        ) from error


def _downloaded(root: str, dataset: Callable[..., Any], url: str, options: dict[str, Any]) -> Any:
    open_url(url).close()  # says within seconds that there is no network; torchvision would hang
    with contextlib.redirect_stdout(sys.stderr), _socket_timeout():  # torchvision reports progress on stdout
        return dataset(root, download=True, **options)


# MNIST and its kind -----------------------------------------------------------------------------------------------


def _mnist_source(name: str, root: str, dataset: Any) -> Source:
    """Describe MNIST or what has its form: four files, compressed or not, read where they lie."""
    splits = {split: partial(_mnist, name, root, dataset, split) for split in ("train", "test")}
    return Source(f"{name} in {root}", splits, dataset=name)


def _mnist(name: str, root: str, dataset: Any, split: str) -> Listing:
    """Read a split, downloading it when nothing of the data set is there.

    Raises:
        DataError: damaged or missing files, or a failed download.
    """
    prefix = "train" if split == "train" else "t10k"
    lying = {entry: path for entry, _ in dataset.resources if (path := _mnist_path(root, dataset, entry))}
    entries = [(entry, md5) for entry, md5 in dataset.resources if entry.startswith(prefix)]
    lacking = [entry for entry, _ in entries if entry not in lying]
    if lacking and lying:
        folder = os.path.dirname(next(iter(lying.values())))
        raise DataError(f"{name}: {folder} lacks {lacking[0].removesuffix('.gz')} (or .gz): put it there")
    if lacking:
        try:
            _downloaded(root, dataset, _first_file(dataset), {})
        except Exception as error:  # as in _build
            reason = " ".join(str(error).split())
            raise DataError(
                f"{name}: not in {root}, and the download failed ({reason}): put its files there"
            ) from error
    findings: list[Finding] = []
    pixels, labels = (
        _mnist_array(name, root, str(_mnist_path(root, dataset, entry)), md5, rank, findings)
        for (entry, md5), rank in zip(entries, (3, 1), strict=True)
    )
    if len(pixels) != len(labels) or not len(labels) or labels.max() >= len(dataset.classes):
        problem = f"{len(pixels)} images, {len(labels)} labels, not of {len(dataset.classes)} classes each"
        raise DataError(f"{name}: files in {root} are damaged or incomplete ({problem}): replace them")
    images = ArrayImages.of(split, pixels)
    return Listing(f"{name}/{split}", images, labels.astype(np.int64), tuple(dataset.classes), tuple(findings))


def _mnist_path(root: str, dataset: Any, entry: str) -> str | None:
    """Return where a published file lies, compressed or not; None: nowhere."""
    stem = entry.removesuffix(".gz")
    names = (stem, stem.replace("-idx", ".idx"), entry)
    folders = (os.path.join(root, dataset.__name__, "raw"), os.path.join(root, dataset.__name__), root)
    paths = (os.path.join(folder, written) for folder in folders for written in names)
    return next((path for path in paths if os.path.isfile(path)), None)


def _mnist_array(
    name: str, root: str, path: str, md5: str, rank: int, findings: list[Finding]
) -> npt.NDArray[np.uint8]:
    """Read a file of so many dimensions; one that is not as published is added to the findings."""
    try:
        if not path.endswith(".gz"):
            return _idx(Path(path).read_bytes(), rank)
        with gzip.open(path) as file:  # which checks the CRC
            content = _idx(file.read(), rank)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        problem = f"files in {root} are damaged or incomplete ({path}: {error})"
        raise DataError(f"{name}: {problem}: replace it") from error
    if md5_of(path) != md5:  # as Debian's package, which compressed the same files again
        message = f"{name}: {path} is not compressed as published, though whole"
        findings.append(Finding("other-archive", "note", message, "nothing to do if you trust where it is from"))
    return content


def _idx(content: bytes, rank: int) -> npt.NDArray[np.uint8]:
    """Return the array uint8 of an IDX file of so many dimensions; ValueError when it is none."""
    if content[:4] != bytes([0, 0, 8, rank]):
        raise ValueError(f"no IDX file of {rank} dimensions")
    shape = np.frombuffer(content, ">i4", rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


@contextlib.contextmanager
def _socket_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
