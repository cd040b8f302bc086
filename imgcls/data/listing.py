"""What a source says about one split, before classes are matched and images are held out.

Knows neither where it came from nor what it is used for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

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
    """

    where: str
    images: Images
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    def counts(self) -> npt.NDArray[np.int64]:
        """Return the images per class, int64 [classes]."""
        return np.bincount(self.labels, minlength=len(self.classes))

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
        notes: what the user should know about how it was found.
    """

    description: str
    splits: Mapping[str, Callable[[], Listing]]
    flat: bool = False
    dataset: str | None = None
    notes: tuple[Finding, ...] = ()


def match(listing: Listing, classes: tuple[str, ...]) -> Listing:
    """Map a listing's labels onto `classes` by name.

    Raises:
        DataError: it has images of a class that is not among `classes`, or only in another spelling.
    """
    counts = dict(zip(listing.classes, listing.counts().tolist(), strict=True))
    index = {name: number for number, name in enumerate(classes)}
    unknown = [name for name, count in counts.items() if count and name not in index]
    if unknown:
        folded = {known.casefold(): known for known in reversed(classes)}
        twins = [(name, folded[name.casefold()]) for name in unknown if name.casefold() in folded]
        if twins:
            raise DataError(
                f"{listing.where}: class '{twins[0][0]}' is written '{twins[0][1]}' in the training data: rename one"
            )
        raise DataError(
            f"{listing.where}: unknown class{'es' if len(unknown) > 1 else ''} {_quoted(unknown)}"
            f"{nearest(unknown[0], classes)}; the model knows {_quoted(classes)}: remove or rename the folder"
        )
    table = np.array([index.get(name, -1) for name in listing.classes], dtype=np.int64)
    missing = [name for name in classes if not counts.get(name)]
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
    return replace(listing, labels=table[listing.labels], classes=classes, findings=findings)


def _quoted(names: list[str] | tuple[str, ...], most: int = 10) -> str:
    listed = ", ".join(f"'{name}'" for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")
