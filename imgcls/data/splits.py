"""Training, validation and test images of a source: classes matched by name, hold-out chosen once and remembered.

Knows no pixels beyond image headers, and no network.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from imgcls.data import draws
from imgcls.data.folder import open_folder
from imgcls.data.holdout import (
    NO_HOLDOUT,
    Hashes,
    choose_holdout,
    content_hashes,
    name_hashes,
    positions,
    recall,
    split_off,
)
from imgcls.data.listing import Listing, Source, folded, match
from imgcls.errors import DataError
from imgcls.paths import check_source
from imgcls.registry import DATASETS, resolve
from imgcls.schema import Finding


@dataclass(frozen=True)
class Splits:
    """The images of a training run.

    Attributes:
        classes: the training split's class names, the truth for everything else.
        train, val: matched listings; `val` is None with `--val-split 0` and no validation folder.
        validation: where the validation images come from, with their number; "" without any.
        holdout: sorted hashes of the names of held-out images, int64; empty when there is a validation split.
        holdout_content: hashes of their content in the same order, int64; 0 for what is not there.
        fingerprint: of training and validation images and their labels.
        dataset: name, when the source is a torchvision data set.
        findings: what the user should know.
    """

    source: str
    classes: tuple[str, ...]
    train: Listing
    val: Listing | None
    validation: str
    holdout: Hashes
    holdout_content: Hashes
    fingerprint: str
    dataset: str | None
    findings: tuple[Finding, ...]


def open_source(text: str, known: Sequence[str] = ()) -> Source:
    """Open what `--data` names: a folder, or NAME or NAME:ROOT of a torchvision data set. A folder wins.

    Args:
        text: what was typed.
        known: class names of a checkpoint, which tell class folders from others.

    Raises:
        UsageError: neither a folder nor a known name.
        DataError: a folder without class folders, or whose folders may be splits or classes.
    """
    check_source(text)
    if os.path.isdir(text):
        source = open_folder(text, known)
        if text in DATASETS:
            note = Finding(
                "folder-wins", "note", f"using the folder {text}/", f"type --data {text}:ROOT for the data set"
            )
            return replace(source, notes=(note, *source.notes))
        return source
    name, _, root = text.partition(":")
    opened: Source = resolve(DATASETS[name])(root or "data")
    return opened


def check_classes(text: str) -> None:
    """Refuse a folder in which no classes can be found; what a data set by name holds shows when it is opened.

    Raises:
        UsageError, DataError: as `open_source`.
    """
    if os.path.isdir(text):
        open_source(text)


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
    _check_usable(text, source)
    train = source.splits["train"]().watched()
    if train.doubt:
        raise DataError(train.doubt)
    _check_trainable(train)
    findings = [*source.notes, *train.findings, *_case_twins(train)]
    if "test" in source.unusable:
        findings.append(_unlabelled(source.unusable["test"]))
    fingerprints = [train.fingerprint()]
    val, held_out, content = None, NO_HOLDOUT, NO_HOLDOUT
    if "val" in source.splits:
        val = match(source.splits["val"]().watched(), train.classes)
        fingerprints.append(val.fingerprint())
        findings += val.findings
        if not len(val.images):
            raise DataError(f"{val.where}: no images; add some, or remove the folder so that a share is held out")
    elif val_split > 0 or (holdout is not None and len(holdout)):
        hashes = name_hashes(train)
        held_out = choose_holdout(train, hashes, val_split, seed) if holdout is None else holdout
        inside = positions(train, hashes, held_out)
        content = content_hashes(train, inside, len(held_out))
        val, train = split_off(train, inside >= 0)
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
        validation=_validation(val, len(held_out) > 0),
        holdout=held_out,
        holdout_content=content,
        fingerprint="-".join(fingerprints),
        dataset=source.dataset,
        findings=tuple(findings),
    )


def _check_usable(text: str, source: Source) -> None:
    """Refuse a source without training images, or whose validation images have no labels."""
    if "train" in source.unusable:
        raise DataError(f"{source.unusable['train']}: put the images of each class into a folder of its own")
    if "train" not in source.splits:
        raise DataError(
            f"{text}: no train/ folder with class folders: add one, or put class folders directly in {text}"
        )
    if "val" in source.unusable:
        advice = "put the images of each class into a folder of its own, or move the folder away to hold a share out"
        raise DataError(f"{source.unusable['val']}: {advice}")


def _validation(val: Listing | None, is_held_out: bool) -> str:
    """Say where the validation images come from, with their number; "" without any."""
    if val is None:
        return ""
    folder = f"{os.path.basename(val.where)}/ {len(val.images)}"  # of a data set its own split
    return f"{len(val.images)} held out of train" if is_held_out else folder


def for_evaluation(
    text: str,
    classes: Sequence[str],
    *,
    split: str | None,
    holdout: Hashes,
    content: Hashes = NO_HOLDOUT,
) -> tuple[str, Listing]:
    """Read the split to evaluate, its labels mapped onto `classes` by name.

    Args:
        text: what `--data` names.
        classes: the checkpoint's.
        split: "train", "val" or "test"; None: test if there is one, else validation (the recorded hold-out
            included), else all images of a folder of class folders.
        holdout: the checkpoint's.
        content: hashes of the content of its images, in the same order; empty in older checkpoints.

    Returns:
        The name of the split, and its images.

    Raises:
        UsageError: no such source.
        DataError: no such split, or a class that the checkpoint does not know.
    """
    source = open_source(text, classes)
    splits: dict[str, Callable[[], Listing]] = dict(source.splits)
    findings = [*source.notes]
    problem = source.unusable.get("test")
    if split in (None, "test") and "test" in splits:
        test = splits["test"]()
        splits["test"] = lambda: test
        problem = _test_problem(test, classes)
    if problem and split == "test":
        raise DataError(f"{_unlabelled(problem)}")
    if problem and split is None and len(splits) > 1:
        findings.append(_unlabelled(problem))
        splits.pop("test", None)
    wanted = split in ("train", "val") or (split is None and "test" not in splits)
    held_out, said = None, list[Finding]()
    if wanted and len(holdout) and "train" in splits and "val" not in splits and split not in source.unusable:
        held_out, rest, said = recall(text, splits["train"](), holdout, content)
        findings += said
        splits["train"] = lambda: rest
        if held_out is not None:
            splits["val"] = lambda: held_out
    if split is None and source.flat and "val" not in splits:
        splits["all"] = splits["train"]
    chosen = split or next((name for name in ("test", "val", "all") if name in splits), "")
    others = f"type --split {' or --split '.join(splits)}"
    if chosen not in splits:
        asked = f"{text}: no {split} images" if split else f"{text}: neither test nor validation images"
        if split == "val" and len(holdout) and "train" in splits:
            asked = f"{text}: none of the {len(holdout)} images held out in training is here"
        raise DataError(f"{source.unusable.get(chosen) or (said[0].message if said else asked)}; {others}")
    listing = match(splits[chosen](), tuple(classes))
    if not len(listing.images):
        raise DataError(f"{listing.where}: no images left; {others}")
    return chosen, replace(listing, findings=(*findings, *listing.findings))


def limited(listing: Listing, most: int, seed: int) -> Listing:
    """Return a seeded sample of at most `most` images."""
    return listing.take(draws.sample(seed, len(listing.images), most))


def _case_twins(train: Listing) -> list[Finding]:
    alike = Counter(folded(name) for name in train.classes)
    twins = [name for name in train.classes if alike[folded(name)] > 1]
    if not twins:
        return []
    listed = ", ".join(f"'{name}'" for name in twins[:10])
    message = f"{train.where}: classes that differ in upper and lower case only: {listed}"
    return [Finding("case-twins", "warning", message, "merge the folders if they are one class")]


def _test_problem(listing: Listing, classes: Sequence[str]) -> str | None:
    """Return why a test split has no labels: all its images in one folder that is no class; None when it has some."""
    present = [name for name, count in zip(listing.classes, listing.counts(), strict=True) if count]
    if len(present) != 1 or folded(present[0]) in map(folded, classes):
        return None
    return f"{listing.where}: all images in {present[0]}/, which is none of the classes"


def _unlabelled(problem: str) -> Finding:
    advice = "imgcls predict takes it, or put the images of each class into a folder of its own"
    return Finding("test-without-labels", "note", f"{problem}: it cannot be evaluated", advice)


def _check_trainable(train: Listing) -> None:
    if len(train.classes) < 2:
        raise DataError(f"{train.where}: only one class, '{train.classes[0]}': add a folder for each other class")
    empty = [name for name, count in zip(train.classes, train.counts(), strict=True) if count == 0]
    if empty:
        listed = ", ".join(f"'{name}'" for name in empty[:10])
        raise DataError(f"{train.where}: no images of class {listed}: add some or remove the folder")
