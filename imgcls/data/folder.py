"""ImageFolder trees: split folders with class folders in them, or class folders alone.

Knows nothing of how labels are used; reads names, never pixels.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import partial

import numpy as np

from imgcls.data.images import FileImages
from imgcls.data.listing import Listing, Source
from imgcls.errors import DataError
from imgcls.inference.inputs import is_folder, is_hidden, is_image_name, walk
from imgcls.schema import Finding

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
CONVERTIBLE = (".heic", ".heif", ".jfif", ".gif", ".avif")


def open_folder(root: str) -> Source:
    """Find the splits of a folder; they are read when asked for.

    Raises:
        DataError: no class folders where they should be, or two validation folders.
    """
    found: dict[str, str] = {}
    for split, names in SPLIT_FOLDERS.items():
        present = [name for name in names if _subfolders(os.path.join(root, name))]
        if len(present) > 1:
            raise DataError(f"{root}: both {present[0]}/ and {present[1]}/ hold validation images: remove or merge one")
        if present:
            found[split] = os.path.join(root, present[0])
    if not found:
        if not _subfolders(root):
            raise DataError(f"{root}: no class folders; expected {root}/train/CLASS/IMAGE or {root}/CLASS/IMAGE")
        inner = [name for name in _subfolders(root) if _subfolders(os.path.join(root, name, "train"))]
        if inner:
            raise DataError(f"{root}: no class folders, but {inner[0]}/ has train/: type --data {root}/{inner[0]}")
        found["train"] = root
    readers = {split: partial(read_split, folder) for split, folder in found.items()}
    return Source(description=root, splits=readers, flat=root in found.values())


def read_split(folder: str) -> Listing:
    """List the images of one split folder; every folder in it is a class, named by the folder.

    Raises:
        DataError: no class folders, no images, or a folder that cannot be read.
    """
    classes = _subfolders(folder)
    names: list[str] = []
    labels: list[int] = []
    ignored: list[str] = []
    hidden = _subfolders(folder, hidden=True)
    for label, class_name in enumerate(classes):
        hidden += [f"{class_name}/{name}" for name in _subfolders(os.path.join(folder, class_name), hidden=True)]
        for path in walk(os.path.join(folder, class_name)):
            if is_image_name(path):
                names.append(os.path.relpath(path, folder))
                labels.append(label)
            elif os.path.isdir(path):
                raise DataError(f"{path}: the folder cannot be read: change its permissions or remove it")
            else:
                ignored.append(path)
    entries = sorted(os.listdir(folder))
    ignored += [os.path.join(folder, name) for name in entries if not os.path.isdir(os.path.join(folder, name))]
    if not names:
        raise DataError(f"{folder}: no images in its class folders; expected {folder}/CLASS/IMAGE.jpg (or .png, …)")
    findings = (*((_hidden(folder, hidden),) if hidden else ()), *((_ignored(folder, ignored),) if ignored else ()))
    return Listing(
        where=folder,
        images=FileImages.of(folder, names),
        labels=np.array(labels, dtype=np.int64),
        classes=tuple(classes),
        findings=findings,
    )


def _subfolders(folder: str, hidden: bool = False) -> list[str]:
    if not os.path.isdir(folder):
        return []
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if is_folder(entry) and is_hidden(entry.name) == hidden)
    except OSError as error:
        raise DataError(f"{folder}: {(error.strerror or str(error)).lower()}: make the folder readable") from error


def _hidden(folder: str, names: list[str]) -> Finding:
    listed = ", ".join(names[:10])
    return Finding(
        "hidden-folders", "note", f"{folder}: hidden folders ignored: {listed}", "remove them at will", tuple(names)
    )


def _ignored(folder: str, paths: list[str]) -> Finding:
    kinds = Counter(os.path.splitext(path)[1].lower() or "no extension" for path in paths)
    listed = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    convert = [kind for kind in kinds if kind in CONVERTIBLE]
    advice = (
        f"convert {', '.join(convert)} to .jpg or .png to use them"
        if convert
        else "nothing to do if they are no images"
    )
    count = f"{len(paths)} file{'s' if len(paths) > 1 else ''}"
    return Finding("ignored-files", "note", f"{folder}: {count} ignored ({listed})", advice, tuple(paths[:20]))
