"""The images of one split folder: every folder in it is a class, named by the folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from imgcls.data.images import FileImages
from imgcls.data.listing import Listing, normal
from imgcls.data.split_names import split_of
from imgcls.errors import DataError, counted
from imgcls.inference.inputs import CONVERTIBLE, is_folder, is_hidden, is_image_name, walk
from imgcls.schema import Finding


def read_split(folder: str, apart: Sequence[str] = ()) -> Listing:
    """List the images of one split folder; every folder in it is a class, named by the folder.

    Args:
        folder: where the class folders are.
        apart: splits whose images a link must not bring in: of training all others, of those training.

    Raises:
        DataError: no class folders, no images, a folder that cannot be read, or two folders that are one class.
    """
    classes = subfolders(folder)
    _check_unicode(folder, classes)
    borders = _Borders(folder, classes, apart)
    classes = [name for name in classes if name not in borders.around]
    names: list[str] = []
    labels: list[int] = []
    ignored: list[str] = []
    hidden = [os.path.join(folder, name) for name in subfolders(folder, hidden=True)]
    for label, class_name in enumerate(classes):
        within = partial(borders.within, class_name)
        for path in walk(os.path.join(folder, class_name), within, hidden.append):
            if is_image_name(path):
                names.append(os.path.relpath(path, folder))
                labels.append(label)
            elif os.path.isdir(path):
                raise DataError(f"{path}: the folder cannot be read: change its permissions or remove it")
            else:
                ignored.append(path)
    entries = [name for name in sorted(os.listdir(folder)) if not os.path.isdir(os.path.join(folder, name))]
    loose = [os.path.join(folder, name) for name in entries if is_image_name(name)]
    ignored += [os.path.join(folder, name) for name in entries if not is_image_name(name)]
    if not names:
        raise DataError(_nothing(folder, loose, borders.left_out, ignored))
    findings = [
        *([_hidden(folder, hidden)] if hidden else []),
        *([_ignored(folder, ignored)] if ignored else []),
        *([_loose(folder, loose)] if loose else []),
        *([_nested(folder, inner)] if (inner := _inner_folders(names)) else []),
        *([_left_out_links(folder, borders.left_out)] if borders.left_out else []),
    ]
    return Listing(
        where=folder,
        images=FileImages.of(folder, names),
        labels=np.array(labels, dtype=np.int64),
        classes=tuple(classes),
        findings=tuple(findings),
        doubt=_doubt(folder, classes, names),
    )


class _Borders:
    """Whether a link within a class leads to images that are not of this class alone."""

    def __init__(self, folder: str, classes: Sequence[str], apart: Sequence[str]) -> None:
        root = os.path.realpath(folder)
        self.left_out: list[str] = []
        self.around: set[str] = set()  # classes that are links to a folder that holds the data
        self.owner: dict[str, str] = {}  # real class folder -> its class; "" for another split
        for name in classes:
            path = os.path.join(folder, name)
            real = os.path.realpath(path) if os.path.islink(path) else os.path.join(root, name)
            if real in (root, *parents(root)):
                self.around.add(name)
                self.left_out.append(path)
            elif (twin := self.owner.setdefault(real, name)) != name:
                raise DataError(f"{folder}: {name}/ and {twin}/ are the same folder (a link): remove one")
        others = {os.path.realpath(path): path for path in apart}
        for real, name in self.owner.items():
            for parent in (real, *parents(real)):
                inside = self.owner.get(parent, name)
                if inside != name or parent in others:
                    where = others.get(parent) or os.path.join(folder, inside)
                    raise DataError(f"{folder}/{name}: is a link into {where}, so that images count twice: remove it")
        self.owner |= dict.fromkeys(others, "")
        self.containing = {parent for real in (*self.owner, root) for parent in parents(real)} | {root}

    def within(self, class_name: str, link: str) -> bool:
        """Tell whether a link in a class may be followed; keep note of those that may not."""
        target = os.path.realpath(link)
        owners = {self.owner.get(path, class_name) for path in (target, *parents(target))}
        if target in self.containing or owners != {class_name}:
            self.left_out.append(link)
            return False
        if os.path.isdir(target):  # now it is this class's
            self.owner[target] = class_name
        return True


def parents(path: str) -> list[str]:
    """Return the folders above a path, the nearest first."""
    found = []
    while (parent := os.path.dirname(path)) != path:
        found.append(parent)
        path = parent
    return found


def subfolders(folder: str, hidden: bool = False) -> list[str]:
    """Return the names of the folders in a folder, sorted: those in sight, or the hidden ones."""
    if not os.path.isdir(folder):
        return []
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if is_folder(entry) and is_hidden(entry.name) == hidden)
    except OSError as error:
        raise DataError(f"{folder}: {(error.strerror or str(error)).lower()}: make the folder readable") from error


def _check_unicode(folder: str, classes: Sequence[str]) -> None:
    """Refuse two names that are one to the eye, as macOS and others write the same letters."""
    seen: dict[str, str] = {}
    for name in classes:
        twin = seen.setdefault(normal(name), name)
        if twin != name:
            raise DataError(
                f"{folder}: the class folders {twin!a} and {name!a} have one name in two Unicode forms: merge them"
            )


def _inner_folders(names: Sequence[str]) -> dict[str, set[str]]:
    """Return class -> the folders in it that hold images."""
    inner: dict[str, set[str]] = {}
    for parts in (name.split(os.sep) for name in names):
        if len(parts) > 2:
            inner.setdefault(parts[0], set()).add(parts[1])
    return inner


def _doubt(folder: str, classes: Sequence[str], names: Sequence[str]) -> str | None:
    """Return why these folders may be no classes; None when nothing speaks against it.

    It is about labels that come from folders alone: where a checkpoint knows the classes, their names decide.
    """
    inner = _inner_folders(names)
    direct = {parts[0] for name in names if len(parts := name.split(os.sep)) == 2}  # with images of their own
    for parts in (name.split(os.sep) for name in names):
        if len(parts) > 3 and split_of(parts[1]):
            return f"{folder}: {parts[0]}/ has {parts[1]}/ with class folders: type --data {folder}/{parts[0]}"
    for name, folders in inner.items():
        again = folders & set(classes)
        if name not in direct and (len(again) > 1 or (again and split_of(name))):
            return (
                f"{folder}: {name}/ is no class: it holds {listed(sorted(again))} again, as lie beside it: remove one "
                f"of the two, or type --data {folder}/{name}"
            )
        splits = {split: folder for folder in sorted(folders) if (split := split_of(folder))}
        if len(splits) > 1:
            some = listed(list(splits.values()))
            return f"{folder}: {name}/ holds {some}: put the splits outside, as {folder}/train/{name}/IMAGE"
    kinds: dict[str, str] = {}
    for name in classes:
        for kind, split in _without_split(name):
            other = kinds.setdefault(kind, name)
            if split not in {found for found_kind, found in _without_split(other) if found_kind == kind}:
                return (
                    f"{folder}: {other}/ and {name}/ look like splits, not like classes: rename them to train/, val/ "
                    f"or test/{_or_type(folder, (other, name), names)} (if they are classes, rename them otherwise)"
                )
    if len(classes) == 1 and inner and not direct:
        several = listed(sorted(inner[classes[0]]))
        return f"{folder}: nothing but {classes[0]}/, with {several} in it: type --data {folder}/{classes[0]}"
    first: dict[str, str] = {}
    for name in sorted(inner.keys() - direct):
        shared = Counter(first[inside] for inside in inner[name] if inside in first).most_common(1)
        if shared and shared[0][1] > 1:
            other = shared[0][0]
            some = listed(sorted(inner[name] & inner[other]))
            return (
                f"{folder}: {other}/ and {name}/ hold the same folders ({some}) and no images of their own, as splits "
                f"do: rename them to train/, val/ or test/{_or_type(folder, (other, name), names)}; if these two are "
                "classes, put their images directly into them"
            )
        for inside in inner[name]:
            first.setdefault(inside, name)
    return None


def _or_type(folder: str, pair: Sequence[str], names: Sequence[str]) -> str:
    """Return what to type for the likelier training folder of two, the larger one, when it holds class folders."""

    def likely(name: str) -> tuple[bool, int]:
        called_so = any(split == "train" for _, split in _without_split(name))
        return called_so, sum(path.startswith(name + os.sep) for path in names)

    chosen = max(pair, key=likely)
    has_folders = any(path.startswith(chosen + os.sep) and path.count(os.sep) > 1 for path in names)
    return f", or type --data {folder}/{chosen}" if has_folders else ""


def _without_split(name: str) -> list[tuple[str, str]]:
    """Return (the name with its word for a split taken out, that split): seg_train and seg_test have one in common."""
    words = [(word, split_of(word[0])) for word in re.finditer("[A-Z]?[a-z]+|[A-Z]+", name)]
    return [(f"{name[: word.start()]}*{name[word.end() :]}".casefold(), split) for word, split in words if split]


def _nothing(folder: str, loose: list[str], links: list[str], ignored: list[str]) -> str:
    """Say that class folders hold no images, and what was met in their place."""
    found = [f"{counted(len(loose), 'image')} beside them"] if loose else []
    found += ["links to the images of another class or split count as none"] if links else []
    found += [f"{count} {kind}: convert to .jpg or .png" for kind, count in _convertible(ignored)]
    found.append(f"expected {folder}/CLASS/IMAGE.jpg (or .png, …)")
    return f"{folder}: no images in its class folders; {'; '.join(found)}"


def _convertible(paths: Iterable[str]) -> list[tuple[str, int]]:
    kinds = Counter(os.path.splitext(path)[1].lower() for path in paths)
    return [(kind, count) for kind, count in kinds.most_common() if kind in CONVERTIBLE]


def _hidden(folder: str, paths: list[str]) -> Finding:
    kinds = Counter(os.path.basename(path) for path in paths)
    listed = ", ".join(f"{name} ({count} times)" if count > 1 else name for name, count in kinds.most_common(10))
    message = f"{folder}: hidden folders ignored: {listed}"
    return Finding("hidden-folders", "note", message, "nothing to do", tuple(paths[:20]))


def _loose(folder: str, paths: list[str]) -> Finding:
    message = f"{folder}: {counted(len(paths), 'image')} beside the class folders left out"
    return Finding("loose-images", "warning", message, "put them into the folder of their class", tuple(paths[:20]))


def _nested(folder: str, inner: dict[str, set[str]]) -> Finding:
    some = "; ".join(f"{name}/ has {listed(sorted(folders), 3)}" for name, folders in list(inner.items())[:3])
    more = f" and {len(inner) - 3} more classes likewise" if len(inner) > 3 else ""
    message = f"{folder}: images in folders within a class count as of that class: {some}{more}"
    return Finding(
        "nested-folders", "note", message, "if the inner folders are the classes, type --data one level deeper"
    )


def _left_out_links(folder: str, paths: list[str]) -> Finding:
    listed = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
    message = f"{folder}: links to the images of another class or split left out: {listed}"
    return Finding("links-left-out", "warning", message, "remove them", tuple(paths[:20]))


def _ignored(folder: str, paths: list[str]) -> Finding:
    kinds = Counter(os.path.splitext(path)[1].lower() or "no extension" for path in paths)
    listed = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    convert = [kind for kind in kinds if kind in CONVERTIBLE]
    advice = (
        f"convert {', '.join(convert)} to .jpg or .png to use them"
        if convert
        else "nothing to do if they are no images"
    )
    count = counted(len(paths), "file")
    return Finding("ignored-files", "note", f"{folder}: {count} ignored ({listed})", advice, tuple(paths[:20]))


def listed(names: Sequence[str], most: int = 10) -> str:
    """Return folder names as a list in words."""
    shown = ", ".join(f"{name}/" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
