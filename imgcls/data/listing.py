"""What a source says about one split, before classes are matched and images are held out.

Knows neither where it came from nor what it is used for.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from imgcls.data.images import Images
from imgcls.errors import DataError, nearest
from imgcls.schema import Finding


@dataclass(frozen=True)
class Listing:
    """The images of one split.

    Attributes:
        where: how messages call it, e.g. "dataset/val".
        images: the pictures.
        labels: int64 [n], indices into `classes`.
        classes: names in the source's own order; empty class folders included.
        findings: what was left out.
        doubt: why the classes may be none, for whoever has nothing but the folders to go by; None: no doubt.
    """

    where: str
    images: Images
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    doubt: str | None = None

    def counts(self) -> npt.NDArray[np.int64]:
        """Return the images per class, int64 [classes]."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def fingerprint(self) -> str:
        """Hash the images, and after a dot their labels, unless each image's name begins with its class folder."""
        names = (self.images.name(index) for index in range(len(self.images)))
        pairs = sorted(zip(names, (self.classes[label] for label in self.labels), strict=True))
        images = self.images.fingerprint()
        if all(name.startswith(class_name + os.sep) for name, class_name in pairs):
            return images
        text = "".join(f"{name}\0{class_name}\n" for name, class_name in pairs)
        return f"{images}.{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"

    def watched(self) -> Listing:
        """Return the same, of which no image may change from now on."""
        return replace(self, images=self.images.watched())

    def take(self, indices: npt.NDArray[np.int64]) -> Listing:
        """Return these images only, the classes unchanged."""
        return replace(self, images=self.images.take(indices), labels=self.labels[indices])


@dataclass(frozen=True)
class Source:
    """A data set: its splits are read only when asked for, so that `train` never looks at the test split.

    Attributes:
        description: how the header calls it.
        splits: "train", "val", "test" -> function that reads it; only those that exist.
        flat: class folders without split folders: all of it is "train".
        dataset: its name when it is a torchvision data set.
        unusable: split -> why it is there and cannot be used.
        notes: what the user should know about how it was found.
    """

    description: str
    splits: Mapping[str, Callable[[], Listing]]
    flat: bool = False
    dataset: str | None = None
    unusable: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[Finding, ...] = ()


def match(listing: Listing, classes: tuple[str, ...]) -> Listing:
    """Map a listing's labels onto `classes` by name; the Unicode form of a name does not count.

    Raises:
        DataError: it has images of a class that is not among `classes`, or only in another spelling.
    """
    counts = listing.counts()
    present = [name for name, count in zip(listing.classes, counts, strict=True) if count]
    alike = Counter(map(normal, classes))
    forms = {normal(known): number for number, known in enumerate(classes) if alike[normal(known)] == 1}
    index = {known: number for number, known in enumerate(classes)}
    found = {name: index.get(name, forms.get(normal(name), -1)) for name in listing.classes}
    unknown = [name for name in present if found[name] < 0]
    if unknown:
        spelt = {folded(known): known for known in reversed(classes)}
        twins = [(name, spelt[folded(name)]) for name in unknown if folded(name) in spelt]
        if twins:
            raise DataError(
                f"{listing.where}: class '{twins[0][0]}' is written '{twins[0][1]}' in the training data: rename one"
            )
        near, advice = nearest(unknown[0], classes), "remove or rename the folder"
        if len(unknown) == len(present) and not near:
            advice = (
                "not one of them is known: name the data or the model that belongs to the other, or rename the folders"
            )
        raise DataError(
            f"{listing.where}: unknown class{'es' if len(unknown) > 1 else ''} {_quoted(unknown)}{near}; "
            f"the model knows {_quoted(classes)}: {_deeper(listing, unknown, classes) or advice}"
        )
    table = np.array([found[name] for name in listing.classes], dtype=np.int64)
    labels = table[listing.labels]
    missing = [
        name for name, count in zip(classes, np.bincount(labels, minlength=len(classes)), strict=True) if not count
    ]
    findings = listing.findings
    if missing and len(listing.images):
        findings += (
            Finding(
                "class-without-images",
                "warning",
                f"{listing.where}: no images of class {_quoted(missing)}",
                "its accuracy cannot be known; add images if you have them",
            ),
        )
    return replace(listing, labels=labels, classes=classes, findings=findings)


def normal(name: str) -> str:
    """Return a name's composed Unicode form: macOS hands out decomposed ones, which look the same."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """Return a name without upper case and Unicode form, for likeness."""
    return normal(normal(name).casefold())


def _deeper(listing: Listing, unknown: Sequence[str], classes: Sequence[str]) -> str | None:
    """Return what to type when the classes lie one folder deeper."""
    known = set(classes)
    for index, label in enumerate(listing.labels.tolist()):
        parts = listing.images.name(index).split("/")
        if listing.classes[label] in unknown and len(parts) > 2 and parts[1] in known:
            return f"{parts[0]}/ has '{parts[1]}' in it: type --data {listing.where}/{parts[0]}"
    return None


def _quoted(names: list[str] | tuple[str, ...], most: int = 10) -> str:
    listed = ", ".join(f"'{name}'" for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")
