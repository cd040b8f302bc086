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
    if _is_one_level_too_many(root, folders, loose, known):
        notes.append(_looked_through(root, folders[0]))
        root = os.path.join(root, folders[0])
        folders, loose = _inside(root)
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
    _check_named(root, named, usable, with_images)
    if not usable:
        notes += [_class_called_like_a_split(root, name, with_images) for names in named.values() for name in names]
        return Source(root, {"train": partial(read_split, root)}, flat=True, notes=tuple(notes))
    notes += [_looked_through(*os.path.split(path)) for path in usable.values() if os.path.dirname(path) != root]
    if "val" in usable and "test" in usable and os.path.realpath(usable["val"]) == os.path.realpath(usable["test"]):
        message = f"{usable['val']} and {usable['test']} are the same folder (a link)"
        advice = "the best epoch is chosen on what is the test"
        notes.append(Finding("test-is-validation", "warning", message, advice))
    empty = [name for split, names in named.items() if not {split} & {*usable, *unusable} for name in names]
    if others or empty or loose:
        is_much = bool(with_images or loose)
        notes.append(_left_out(root, usable, sorted(others + empty), loose, "warning" if is_much else "note"))
    readers = {
        split: partial(read_split, path, [usable[name] for name in usable if (name == "train") != (split == "train")])
        for split, path in usable.items()
    }
    return Source(root, readers, unusable=unusable, notes=tuple(notes))


def _is_one_level_too_many(root: str, folders: Sequence[str], loose: int, known: Sequence[str]) -> bool:
    """Tell whether a folder holds the data set's folder and nothing else, as many archives do."""
    if len(folders) != 1 or loose or split_of(folders[0]) or folders[0] in known:
        return False
    inside, beside = _inside(os.path.join(root, folders[0]))
    # A single class cannot be trained on, so that this can be nothing else than one level too many.
    return any(map(split_of, inside)) or (len(inside) > 1 and not beside)


def _check_named(root: str, named: dict[str, list[str]], usable: dict[str, str], with_images: Sequence[str]) -> None:
    """Refuse folders called like a split that may be classes, or that hold no classes.

    Args:
        root: where they lie.
        named: split -> the folders called so.
        usable: split -> the folder that holds its class folders.
        with_images: the other folders that hold images.
    """
    if usable and len(with_images) > 1 and len(named) == 1:
        (name,) = _tops(root, usable)
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


def _tops(root: str, usable: dict[str, str]) -> list[str]:
    return [os.path.relpath(path, root).split(os.sep)[0] for path in usable.values()]


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


def _left_out(
    root: str, usable: dict[str, str], folders: Sequence[str], loose: int, severity: Literal["note", "warning"]
) -> Finding:
    left = [*([listed(folders)] if folders else []), *([counted(loose, "image")] if loose else [])]
    message = f"{root}: left out beside {listed(_tops(root, usable))}: {', '.join(left)}"
    advice = "a split under another name must be renamed to train/, val/ or test/"
    return Finding("left-out", severity, message, advice)


def _class_called_like_a_split(root: str, name: str, beside: Sequence[str]) -> Finding:
    message = f"{root}: {name}/ is taken for a class, because {listed(beside)} lie beside it and it has no folders"
    return Finding("class-or-split", "warning", message, f"if it is a split, type --data with class folders in {name}/")
