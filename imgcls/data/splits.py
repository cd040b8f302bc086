"""Training, validation and test images of a source: classes matched by name, hold-out chosen once and remembered.

Knows no pixels beyond image headers, and no network.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from imgcls.data import draws
from imgcls.data.folder import open_folder
from imgcls.data.listing import Listing, Source, match
from imgcls.errors import DataError, UsageError, nearest
from imgcls.registry import DATASETS, resolve
from imgcls.schema import Finding

Hashes = npt.NDArray[np.int64]
NO_HOLDOUT: Hashes = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Splits:
    """The images of a training run.

    Attributes:
        classes: the training split's class names, the truth for everything else.
        train, val: matched listings; `val` is None with `--val-split 0` and no validation folder.
        holdout: sorted hashes of the names of held-out images, int64; empty when there is a validation split.
        fingerprint: of training and validation images together.
        dataset: name, when the source is a torchvision data set.
        findings: what the user should know.
    """

    source: str
    classes: tuple[str, ...]
    train: Listing
    val: Listing | None
    holdout: Hashes
    fingerprint: str
    dataset: str | None
    findings: tuple[Finding, ...]


def open_source(text: str) -> Source:
    """Open what `--data` names: a folder, or NAME or NAME:ROOT of a torchvision data set. A folder wins.

    Raises:
        UsageError: neither a folder nor a known name.
        DataError: a folder without class folders.
    """
    if not text:
        raise UsageError("--data is missing: give a folder of images or a data set's name")
    name, _, root = text.partition(":")
    if os.path.isdir(text):
        source = open_folder(text)
        if text in DATASETS:
            note = Finding(
                "folder-wins", "note", f"using the folder {text}/", f"type --data {text}:ROOT for the data set"
            )
            return replace(source, notes=(note,))
        return source
    if name in DATASETS:
        opened: Source = resolve(DATASETS[name])(root or "data")
        return opened
    if os.path.exists(text):
        raise UsageError(f"--data {text}: is a file; give the folder that holds the class folders")
    raise UsageError(
        f"--data {text}: no such folder or data set{nearest(text, DATASETS)}; names: {', '.join(DATASETS)}"
    )


def for_training(
    text: str, *, val_split: float, seed: int, limit: int | None = None, holdout: Hashes | None = None
) -> Splits:
    """Read the training and validation images of a source; the test split is not looked at.

    Args:
        text: what `--data` names.
        val_split: share of each class to hold out when there is no validation split; 0: none.
        seed: of the hold-out and of `limit`'s sample.
        limit: images per split at most.
        holdout: the recorded hold-out of a run that is resumed.

    Raises:
        UsageError: no such source.
        DataError: what is there cannot be trained on.
    """
    source = open_source(text)
    if "train" not in source.splits:
        raise DataError(
            f"{text}: no train/ folder with class folders: add one, or put class folders directly in {text}"
        )
    train = source.splits["train"]()
    _check_trainable(train)
    findings = [*source.notes, *train.findings, *_case_twins(train)]
    fingerprints = [train.images.fingerprint()]
    val, held_out = None, NO_HOLDOUT
    if "val" in source.splits:
        val = match(source.splits["val"](), train.classes)
        fingerprints.append(val.images.fingerprint())
        findings += val.findings
        if not len(val.images):
            raise DataError(f"{val.where}: no images; add some, or remove the folder so that a share is held out")
    elif val_split > 0 or (holdout is not None and len(holdout)):
        hashes = name_hashes(train)
        held_out = choose_holdout(train, hashes, val_split, seed) if holdout is None else holdout
        val, train = split_off(train, hashes, held_out)
        findings += match(val, train.classes).findings
        if len(val.images) == 0 or len(train.images) == 0:
            raise DataError(f"{train.where}: too few images to hold some out: add images or type --val-split 0")
    if limit is not None:
        train, val = limited(train, limit, seed), val and limited(val, limit, seed)
    if len(train.images) < 2:
        raise DataError(f"{train.where}: one image is not enough to train on: add images")
    return Splits(
        source=source.description,
        classes=train.classes,
        train=train,
        val=val,
        holdout=held_out,
        fingerprint="-".join(fingerprints),
        dataset=source.dataset,
        findings=tuple(findings),
    )


def for_evaluation(
    text: str, classes: Sequence[str], *, split: str | None, holdout: Hashes, limit: int | None = None, seed: int = 0
) -> tuple[str, Listing]:
    """Read the split to evaluate, its labels mapped onto `classes` by name.

    Args:
        text: what `--data` names.
        classes: the checkpoint's.
        split: "train", "val" or "test"; None: test if there is one, else validation (the recorded hold-out
            included), else all images of a folder of class folders.
        holdout: the checkpoint's.
        limit: at most this many images.
        seed: of `limit`'s sample.

    Returns:
        The name of the split, and its images.

    Raises:
        UsageError: no such source.
        DataError: no such split, or a class that the checkpoint does not know.
    """
    source = open_source(text)
    splits: dict[str, Callable[[], Listing]] = dict(source.splits)
    wanted = split in ("train", "val") or (split is None and "test" not in splits)
    if wanted and len(holdout) and "train" in splits and "val" not in splits:
        train = splits["train"]()
        held_out, rest = split_off(train, name_hashes(train), holdout)
        if 0 < len(held_out.images) < len(holdout):
            held_out = replace(held_out, findings=(_partly_missing(text, len(held_out.images), len(holdout)),))
        if len(held_out.images):
            splits |= {"train": lambda: rest, "val": lambda: held_out}
        elif split == "val":
            raise DataError(
                f"{text}: none of the {len(holdout)} images held out in training is here; type --split train"
            )
    if split is None and source.flat and "val" not in splits:
        chosen = "all"
        splits["all"] = splits["train"]
    else:
        chosen = split or next((name for name in ("test", "val") if name in splits), "")
    if chosen not in splits:
        asked = f"no {split} images" if split else "neither test nor validation images"
        raise DataError(f"{text}: {asked}; type --split {' or --split '.join(splits)}")
    listing = splits[chosen]()
    listing = match(listing, tuple(classes))
    if not len(listing.images):
        raise DataError(f"{listing.where}: no images left; type --split {' or --split '.join(splits)}")
    if limit is not None:
        listing = limited(listing, limit, seed)
    return chosen, listing


def limited(listing: Listing, most: int, seed: int) -> Listing:
    """Return a seeded sample of at most `most` images."""
    return listing.take(draws.sample(seed, len(listing.images), most))


def choose_holdout(train: Listing, hashes: Hashes, share: float, seed: int) -> Hashes:
    """Choose a seeded, stratified share of the images to hold out: at least one of each class of two or more.

    Args:
        train: the images to choose from.
        hashes: of their names, int64 [n].
        share: of each class, 0 to 0.9.
        seed: another seed, another choice.

    Returns:
        The chosen hashes, sorted, int64.
    """
    ranks = draws.hashed(draws.HOLDOUT, seed, 0, hashes)
    chosen = []
    # Sorted once: looking through all labels for each class took 10 s for 21,841 classes of 50 images.
    ordered = hashes[np.lexsort((ranks, train.labels))]
    for members in np.split(ordered, np.cumsum(train.counts())[:-1]):
        count = min(max(1, round(len(members) * share)), len(members) - 1)
        chosen.append(members[:count])
    return np.sort(np.concatenate(chosen))


def name_hashes(listing: Listing) -> Hashes:
    """Return the hash of each image's name, int64 [n]."""
    return np.array([draws.name_hash(listing.images.name(i)) for i in range(len(listing.images))], dtype=np.int64)


def split_off(train: Listing, hashes: Hashes, holdout: Hashes) -> tuple[Listing, Listing]:
    """Return (held-out images, the others)."""
    inside = np.isin(hashes, holdout)
    held_out = replace(train.take(np.flatnonzero(inside)), where=f"{train.where} (held out)", findings=())
    return held_out, train.take(np.flatnonzero(~inside))


def _case_twins(train: Listing) -> list[Finding]:
    folded = Counter(name.casefold() for name in train.classes)
    twins = [name for name in train.classes if folded[name.casefold()] > 1]
    if not twins:
        return []
    listed = ", ".join(f"'{name}'" for name in twins[:10])
    message = f"{train.where}: classes that differ in upper and lower case only: {listed}"
    return [Finding("case-twins", "warning", message, "merge the folders if they are one class")]


def _partly_missing(text: str, here: int, recorded: int) -> Finding:
    message = f"{text}: {here} of the {recorded} images held out in training are here"
    return Finding("hold-out-incomplete", "warning", message, "the accuracy is of these; look for the others")


def _check_trainable(train: Listing) -> None:
    if len(train.classes) < 2:
        raise DataError(f"{train.where}: only one class, '{train.classes[0]}': add a folder for each other class")
    empty = [name for name, count in zip(train.classes, train.counts(), strict=True) if count == 0]
    if empty:
        listed = ", ".join(f"'{name}'" for name in empty[:10])
        raise DataError(f"{train.where}: no images of class {listed}: add some or remove the folder")
