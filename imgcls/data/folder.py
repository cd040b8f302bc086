"""ImageFolder trees: split folders with class folders in them, or class folders alone.

Knows nothing of how labels are used; reads names, never pixels.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from functools import partial
from typing import Literal

from imgcls.data.class_folders import listed, parents, read_split, subfolders
from imgcls.data.listing import Source
from imgcls.data.split_names import split_of
from imgcls.errors import DataError, counted
from imgcls.inference.inputs import is_image_name, walk
from imgcls.schema import Finding


def open_folder(root: str, known: Sequence[str] = ()) -> Source:
    """Find the splits of a folder; they are read when asked for.

    Args:
        root: the folder.
        known: class names of a checkpoint: a folder so called is a class, even where it lies alone.

    Raises:
        DataError: no class folders where they should be, two folders for one split, or folders that may be either.
    """
    root = root.rstrip(os.sep) or root  # as tab completion writes it
    folders, loose = _inside(root)
    notes: list[Finding] = []
    if len(folders) == 1 and not loose and not split_of(folders[0]) and folders[0] not in known:
        inner = os.path.join(root, folders[0])
        inside, beside = _inside(inner)
        # A single class cannot be trained on, so that this can be nothing else than one level too many.
        if any(map(split_of, inside)) or (len(inside) > 1 and not beside):
            notes.append(_looked_through(root, folders[0]))
            root, folders, loose = inner, inside, beside
    if not folders:
        found = f"; found {counted(loose, 'image')} directly in it" if loose else ""
        raise DataError(f"{root}: no class folders; expected {root}/train/CLASS/IMAGE or {root}/CLASS/IMAGE{found}")
    named: dict[str, list[str]] = {}
    for name in folders:
        if split := split_of(name):
            named.setdefault(split, []).append(name)
    usable, unusable = _splits(root, named)
    others = [name for name in folders if not split_of(name)]
    with_images = [name for name in others if _holds_images(os.path.join(root, name))] if named else others
    if usable and len(with_images) > 1 and len(named) == 1:
        (name,) = (os.path.relpath(path, root).split(os.sep)[0] for path in usable.values())
        raise DataError(
            f"{root}: {name}/ holds folders, and beside it lie images in {listed(with_images)}: if {name}/ is a "
            f"split, type --data {root}/{name}, or rename the others to train/, val/ or test/; if it is a class, put "
            "its images directly into it"
        )
    if not usable and named and not (with_images and len(named) == 1):
        called = listed([name for names in named.values() for name in names])
        raise DataError(
            f"{root}: {called} without class folders: put the images of each class into a folder of its own "
            f"({root}/train/CLASS/IMAGE); if these are the classes, rename them"
        )
    if not usable:
        notes += [_class_called_like_a_split(root, name, with_images) for names in named.values() for name in names]
        return Source(root, {"train": partial(read_split, root)}, flat=True, notes=tuple(notes))
    for path in usable.values():
        outer, inner = os.path.split(path)
        if outer != root:
            notes.append(_looked_through(outer, inner))
    if "val" in usable and "test" in usable and os.path.realpath(usable["val"]) == os.path.realpath(usable["test"]):
        message = f"{usable['val']} and {usable['test']} are the same folder (a link)"
        advice = "the best epoch is chosen on what is the test"
        notes.append(Finding("test-is-validation", "warning", message, advice))
    for name, names in named.items():
        if name not in usable and name not in unusable:
            others += names  # empty
    if others or loose:
        left = [*([listed(sorted(others))] if others else []), *([counted(loose, "image")] if loose else [])]
        splits = [os.path.relpath(path, root).split(os.sep)[0] for path in usable.values()]
        message = f"{root}: left out beside {listed(splits)}: "
        advice = "a split under another name must be renamed to train/, val/ or test/"
        severity: Literal["note", "warning"] = "warning" if with_images or loose else "note"
        notes.append(Finding("left-out", severity, message + ", ".join(left), advice))
    readers = {
        split: partial(read_split, path, [usable[name] for name in usable if (name == "train") != (split == "train")])
        for split, path in usable.items()
    }
    return Source(root, readers, unusable=unusable, notes=tuple(notes))


def _inside(folder: str) -> tuple[list[str], int]:
    """Return the folders in a folder, hidden ones left out, and how many images lie directly in it."""
    folders = subfolders(folder)
    return folders, sum(is_image_name(name) for name in os.listdir(folder)) if os.path.isdir(folder) else 0


def _splits(root: str, named: dict[str, list[str]]) -> tuple[dict[str, str], dict[str, str]]:
    """Return split -> folder that holds its class folders, and split -> why it cannot be used."""
    usable, unusable = {}, {}
    for split, names in named.items():
        present = []
        for name in names:
            path = os.path.join(root, name)
            folders, loose = _inside(path)
            if len(folders) == 1 and not loose and split_of(folders[0]) == split:  # train/train/CLASS
                path = os.path.join(path, folders[0])
                folders, loose = _inside(path)
            if folders or loose:
                present.append(name)
            if folders:
                usable[split] = path
            elif loose:
                found = counted(loose, "image")
                unusable[split] = f"{path}: {found} and no class folders, so that their classes are not known"
        if len(present) > 1:
            kind = {"train": "training", "val": "validation", "test": "test"}[split]
            raise DataError(f"{root}: both {present[0]}/ and {present[1]}/ hold {kind} images: remove or merge one")
        if not present and split == "val":
            unusable[split] = f"{os.path.join(root, names[0])}: no images"
    real = {split: os.path.realpath(path) for split, path in usable.items()}
    for one, other in itertools.permutations(real, 2):
        if "train" in (one, other) and real[other] in (real[one], *parents(real[one])):
            raise DataError(f"{usable[one]}: lies in {usable[other]} (a link): the same images in both: remove it")
    return usable, unusable


def _holds_images(folder: str) -> bool:
    return any(is_image_name(path) for path in walk(folder))


def _looked_through(folder: str, name: str) -> Finding:
    message = f"{folder}: holds nothing but {name}/, whose folders are used"
    return Finding("looked-through", "note", message, "nothing to do")


def _class_called_like_a_split(root: str, name: str, beside: Sequence[str]) -> Finding:
    message = f"{root}: {name}/ is taken for a class, because {listed(beside)} lie beside it and it has no folders"
    return Finding("class-or-split", "warning", message, f"if it is a split, type --data with class folders in {name}/")
