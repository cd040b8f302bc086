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
from imgcls.data.listing import Listing, Source, folded, match, normal
from imgcls.errors import DataError
from imgcls.paths import check_source
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
        validation: where the validation images come from, with their number; "" without any.
        holdout: sorted hashes of the names of held-out images, int64; empty when there is a validation split.
        holdout_content: hashes of their content in the same order, int64; 0 for what is not there.
        fingerprint: of training and validation images together.
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
    if "train" in source.unusable:
        raise DataError(f"{source.unusable['train']}: put the images of each class into a folder of its own")
    if "train" not in source.splits:
        raise DataError(
            f"{text}: no train/ folder with class folders: add one, or put class folders directly in {text}"
        )
    if "val" in source.unusable:
        advice = "put the images of each class into a folder of its own, or move the folder away to hold a share out"
        raise DataError(f"{source.unusable['val']}: {advice}")
    train = source.splits["train"]()
    if train.doubt:
        raise DataError(train.doubt)
    _check_trainable(train)
    findings = [*source.notes, *train.findings, *_case_twins(train)]
    if "test" in source.unusable:
        findings.append(_unlabelled(source.unusable["test"]))
    fingerprints = [train.images.fingerprint()]
    val, held_out, content = None, NO_HOLDOUT, NO_HOLDOUT
    if "val" in source.splits:
        val = match(source.splits["val"](), train.classes)
        fingerprints.append(val.images.fingerprint())
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
    validation = ""
    if val is not None:
        folder = f"{os.path.basename(val.where)}/ {len(val.images)}"  # of a data set its own split
        validation = f"{len(val.images)} held out of train" if len(held_out) else folder
    if len(train.images) < 2:
        raise DataError(f"{train.where}: one image is not enough to train on: add images")
    return Splits(
        source=source.description,
        classes=train.classes,
        train=train,
        val=val,
        validation=validation,
        holdout=held_out,
        holdout_content=content,
        fingerprint="-".join(fingerprints),
        dataset=source.dataset,
        findings=tuple(findings),
    )


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
    elsewhere = ""
    if wanted and len(holdout) and "train" in splits and "val" not in splits and split not in source.unusable:
        train = splits["train"]()
        held_out, rest, said = recall(text, train, holdout, content)
        if held_out is not None:
            findings += said
            splits |= {"train": lambda: rest, "val": lambda: held_out}
        elif said:
            findings += said
            elsewhere = f"{said[0].message}; "
        elif split == "val":
            elsewhere = f"{text}: none of the {len(holdout)} images held out in training is here; "
    if split is None and source.flat and "val" not in splits:
        chosen = "all"
        splits["all"] = splits["train"]
    else:
        chosen = split or next((name for name in ("test", "val") if name in splits), "")
    if chosen not in splits:
        asked = f"no {split} images" if split else "neither test nor validation images"
        reason = f"{source.unusable[chosen]}; " if chosen in source.unusable else elsewhere or f"{text}: {asked}; "
        raise DataError(f"{reason}type --split {' or --split '.join(splits)}")
    listing = splits[chosen]()
    listing = match(listing, tuple(classes))
    listing = replace(listing, findings=(*findings, *listing.findings))
    if not len(listing.images):
        raise DataError(f"{listing.where}: no images left; type --split {' or --split '.join(splits)}")
    return chosen, listing


def recall(
    text: str, train: Listing, holdout: Hashes, content: Hashes
) -> tuple[Listing | None, Listing, list[Finding]]:
    """Find the images held out in training again.

    Names alone prove nothing: cameras and scripts number the pictures of every folder from 1. Where at least half of
    the images that bear a held-out name have its content too, this is the data set of the training: these are the
    hold-out, and those with other content are left out of both parts (a file that was renumbered may have been
    trained on). With fewer it is another data set, and nothing of it was held out.

    Args:
        text: what `--data` names.
        train: the images among which they may be.
        holdout: sorted hashes of names, int64.
        content: hashes of content in the same order, int64; empty: not recorded, and names decide.

    Returns:
        The held-out images (None: none is here), the others, and what the user should know.
    """
    position = positions(train, name_hashes(train), holdout)
    named = np.flatnonzero(position >= 0)
    same = np.ones(len(named), dtype=np.bool_)
    if len(content) == len(holdout):
        same = (
            np.array([train.images.content(int(index)) for index in named], dtype=np.int64) == content[position[named]]
        )
    if not len(named):
        return None, train, []
    here, changed, recorded = int(same.sum()), int((~same).sum()), len(holdout)
    if here < changed:
        message = (
            f"{text}: {len(named)} images have the names of images held out in training, and {changed} of them another "
            "content: taken for another data set, of which nothing was held out"
        )
        advice = "if it is the same one in another form, the accuracy on images that were trained on says nothing"
        return None, train, [Finding("hold-out-elsewhere", "warning", message, advice)]
    chosen = np.zeros(len(train.images), dtype=np.bool_)
    chosen[named[same]] = True
    held_out, _ = split_off(train, chosen)
    _, rest = split_off(train, position >= 0)
    said = []
    if here < recorded:
        other = f", {changed} more have other content and are left out" if changed else ""
        message = f"{text}: {here} of the {recorded} images held out in training are here{other}"
        advice = "the accuracy is of these; look for the others"
        said = [Finding("hold-out-incomplete", "warning", message, advice)]
    return held_out, rest, said


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
    ranks = draws.hashed(draws.Stream.HOLDOUT, seed, 0, hashes)
    chosen = []
    # Sorted once: looking through all labels for each class took 10 s for 21,841 classes of 50 images.
    ordered = hashes[np.lexsort((ranks, train.labels))]
    for members in np.split(ordered, np.cumsum(train.counts())[:-1]):
        count = min(max(1, round(len(members) * share)), len(members) - 1)
        chosen.append(members[:count])
    return np.sort(np.concatenate(chosen))


def name_hashes(listing: Listing) -> Hashes:
    """Return the hash of each image's name, int64 [n]; the same for either Unicode form of a name."""
    names = (listing.images.name(index) for index in range(len(listing.images)))
    return np.array([draws.name_hash(normal(name)) for name in names], dtype=np.int64)


def positions(listing: Listing, hashes: Hashes, holdout: Hashes) -> Hashes:
    """Return each image's position among the held-out ones, int64 [n]; -1 when it is none of them.

    Args:
        listing: the images.
        hashes: of their names.
        holdout: sorted hashes of names.
    """
    if not len(holdout):
        return np.full(len(hashes), -1, dtype=np.int64)
    position = np.searchsorted(holdout, hashes).clip(max=len(holdout) - 1)
    found: Hashes = np.where(holdout[position] == hashes, position, -1)
    for index in np.flatnonzero(found < 0):  # older checkpoints hashed names in the form they had
        name = listing.images.name(int(index))
        if not name.isascii() and name != normal(name):
            written = np.int64(draws.name_hash(name))
            at = min(int(np.searchsorted(holdout, written)), len(holdout) - 1)
            found[index] = at if holdout[at] == written else -1
    return found


def content_hashes(listing: Listing, position: Hashes, count: int) -> Hashes:
    """Return the hashes of the content of held-out images in the order of the hold-out, int64 [count].

    Args:
        listing: all images.
        position: each one's place in the hold-out, -1 for the others.
        count: of held-out images; 0 stands for the content of one that is not in the listing.
    """
    content = np.zeros(count, dtype=np.int64)
    for index in np.flatnonzero(position >= 0):
        content[position[index]] = listing.images.content(int(index))
    return content


def split_off(train: Listing, inside: npt.NDArray[np.bool_]) -> tuple[Listing, Listing]:
    """Return (held-out images, the others)."""
    held_out = replace(train.take(np.flatnonzero(inside)), where=f"{train.where} (held out)", findings=())
    return held_out, train.take(np.flatnonzero(~inside))


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
