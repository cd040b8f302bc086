"""The result of an evaluation as plain values: figures of all images, of each class, and of two classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Seen = Literal["trained on", "validated on"]


@dataclass(frozen=True, kw_only=True)
class ClassReport:
    """One class in an evaluation. Rates are fractions; all are None when the class has no images."""

    class_name: str
    support: int
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, kw_only=True)
class Confused:
    """Images of one class that were taken for another."""

    class_name: str
    predicted: str
    images: int
    share: float  # of the class's images


@dataclass(frozen=True, kw_only=True)
class ConfusionPair:
    """How many images of a class were answered with a class, itself or another."""

    class_name: str
    predicted: str
    images: int


@dataclass(frozen=True, kw_only=True)
class BinaryReport:
    """Two classes: how well the positive one is told from the other. Rates are None where nothing is counted."""

    positive: str
    negative: str
    auc: float | None  # area under the ROC curve; None when one class has no images
    threshold: float  # the answer is positive from this probability on; what follows holds for it
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    precision: float | None
    recall: float | None
    specificity: float | None
    f1: float | None
    # false positive rate, true positive rate, and the threshold they belong to; None: above every score
    roc: tuple[tuple[float, float, float | None], ...] | None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What an evaluation is of: which model, which images, and when."""

    checkpoint: str  # as given
    file: str  # what it leads to, links followed
    sha256: str  # of that file
    arch: str
    epoch: int  # epochs it was trained
    reached: str  # the same in words, or within which epoch it was saved
    data: str  # as given
    where: str  # the split's folder, or the data set and split
    fingerprint: str  # of the images measured: of names and byte sizes, or of the pixels of a torchvision data set
    date: str  # when it began, UTC, ISO 8601
    versions: dict[str, str]  # of imgcls, Python, torch and torchvision

    def __str__(self) -> str:
        link = f" -> {self.file}" if self.file != self.checkpoint else ""
        return (
            f"{self.checkpoint}{link} ({self.arch}, {self.reached}) on {self.where}, {self.date}, "
            f"imgcls {self.versions['imgcls']}, torch {self.versions['torch']}"
        )


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """The result of an evaluation. `confusion[i][j]` counts images of class i predicted as class j.

    Averages are over the classes that have images: macro counts each class once, weighted each image once. What says
    which class was taken for which is of `evaluate` alone: validation in training counts by class.
    """

    split: str
    images: int
    loss: float
    accuracy: float
    accuracy_interval: tuple[float, float]  # 95 %, Wilson
    top5: float | None  # None with five classes or fewer
    macro_precision: float
    macro_recall: float
    macro_f1: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float
    per_class: tuple[ClassReport, ...]
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] | None = None  # None with more than 1,000 classes
    confusion_pairs: tuple[ConfusionPair, ...] = ()  # the entries of `confusion` that are not 0
    most_confused: tuple[Confused, ...] = ()  # at most ten pairs, by images
    binary: BinaryReport | None = None  # for two classes, of `evaluate`
    seen_in_training: Seen | None = None  # by this model; None: not known, because a checkpoint keeps no list of them
    origin: Origin | None = field(default=None, compare=False)  # of `evaluate`; the date makes no other result

    def to_dict(self) -> dict[str, Any]:
        """Return the stable fields of `evaluate --json`."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        by_class = ("per_class", "confusion_pairs", "most_confused")
        values |= {name: [_by_class(row) for row in values[name]] for name in by_class}
        return values | {name: asdict(values[name]) for name in ("binary", "origin") if values[name] is not None}


def _by_class(row: ClassReport | ConfusionPair | Confused) -> dict[str, Any]:
    values = dict(vars(row))
    return {"class": values.pop("class_name"), **values}
