"""Every figure of an evaluation in one table: its name, its function, which way is better, and how it is shown.

Counts in, report out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from imgcls.intervals import wilson
from imgcls.report import BinaryReport, ClassReport, Confused, ConfusionPair, EvalReport

TOP = 5  # top-k accuracy that is reported, where there are more classes than that
MOST_SQUARE = 1000  # classes up to which there is a whole confusion matrix; of 1,000 it is 9 MB of JSON

Of = TypeVar("Of")


class ClassCounts(NamedTuple):
    """One class: its images, the images answered with it, and the images that are both."""

    support: int
    predicted: int
    hits: int


@dataclass(frozen=True)
class Counts:
    """What is counted over a split. A class x class table would need 3.8 GB for 21,841 classes.

    Attributes:
        per_class: of each class.
        loss_sum: sum of the cross-entropy over all images.
        top_hits: images whose class is among the `TOP` most probable.
    """

    per_class: tuple[ClassCounts, ...]
    loss_sum: float
    top_hits: int

    @property
    def images(self) -> int:
        """All images."""
        return sum(row.support for row in self.per_class)

    @property
    def correct(self) -> int:
        """The images that are answered with their own class."""
        return sum(row.hits for row in self.per_class)


@dataclass(frozen=True)
class Metric(Generic[Of]):
    """One figure.

    Attributes:
        name: the field of the report, in Python and in JSON.
        title: what it is called where it is printed.
        of: gives it of what was counted; None: there is nothing that it could be of.
        shown: as a percentage, as a fraction with three digits, or as a loss.
        higher_is_better: or lower.
    """

    name: str
    title: str
    of: Callable[[Of], float | None]
    shown: Literal["percent", "fraction", "loss"] = "fraction"
    higher_is_better: bool = True


def top_accuracy(counts: Counts) -> float | None:
    """Return the fraction of images whose class is among the `TOP` most probable; None where all classes are."""
    return counts.top_hits / counts.images if len(counts.per_class) > TOP else None


# Of all images; each is a field of `EvalReport`.
METRICS: tuple[Metric[Counts], ...] = (
    Metric("accuracy", "accuracy", lambda counts: counts.correct / counts.images, "percent"),
    Metric("loss", "loss", lambda counts: counts.loss_sum / counts.images, "loss", higher_is_better=False),
    Metric("top5", f"top-{TOP}", top_accuracy, "percent"),
)

# Of a class that has images; each is a field of `ClassReport`, and with the name of an average one of `EvalReport`.
RATES: tuple[Metric[ClassCounts], ...] = (
    Metric("precision", "precision", lambda row: row.hits / row.predicted if row.predicted else 0.0),
    Metric("recall", "recall", lambda row: row.hits / row.support),
    Metric("f1", "F1", lambda row: 2 * row.hits / (row.support + row.predicted)),
)

AVERAGES = ("macro", "weighted")  # over classes and over images, of those that have any


def summarise(counts: Counts, classes: Sequence[str], split: str) -> EvalReport:
    """Turn counts into a report, all but which class was taken for which: see `with_pairs`.

    Args:
        counts: of at least one image.
        classes: names.
        split: which images these were.
    """
    rows = tuple(_class_report(name, row) for name, row in zip(classes, counts.per_class, strict=True))
    values: dict[str, Any] = {metric.name: metric.of(counts) for metric in METRICS}
    for rate in RATES:
        known = [(row.support, getattr(row, rate.name)) for row in rows if row.support]
        values[f"macro_{rate.name}"] = sum(value for _, value in known) / len(known)
        values[f"weighted_{rate.name}"] = sum(support * value for support, value in known) / counts.images
    return EvalReport(
        split=split,
        images=counts.images,
        accuracy_interval=wilson(counts.correct, counts.images),
        per_class=rows,
        classes=tuple(classes),
        **values,
    )


def figures(report: EvalReport) -> dict[str, float | None]:
    """Return every figure over all images, by name."""
    averages = (f"{average}_{rate.name}" for average in AVERAGES for rate in RATES)
    return {name: getattr(report, name) for name in (*(metric.name for metric in METRICS), *averages)}


def _class_report(name: str, row: ClassCounts) -> ClassReport:
    known = row.support > 0
    rates: dict[str, Any] = {rate.name: rate.of(row) if known else None for rate in RATES}
    return ClassReport(
        class_name=name,
        support=row.support,
        accuracy=row.hits / row.support if known else None,
        accuracy_interval=wilson(row.hits, row.support) if known else None,
        **rates,
    )


def with_pairs(
    report: EvalReport, labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], most: int = 10
) -> EvalReport:
    """Add to a report which class was taken for which: pairs, the most confused of them, and the matrix.

    Args:
        report: of the same images.
        labels: indices of their classes, int64 [images].
        predicted: indices of the answers, int64 [images].
        most: how many pairs to call the most confused.
    """
    names = report.classes
    cells, images = np.unique(labels * len(names) + predicted, return_counts=True)  # as many as images, at most
    truth, answer = np.divmod(cells, len(names))
    wrong = np.flatnonzero(truth != answer)
    worst = wrong[np.argsort(-images[wrong], kind="stable")[:most]]
    matrix = None
    if len(names) <= MOST_SQUARE:
        table = np.zeros((len(names), len(names)), dtype=np.int64)
        table[truth, answer] = images
        matrix = tuple(map(tuple, table.tolist()))

    def rows(which: npt.NDArray[np.int64] | slice) -> Iterator[tuple[int, int, int]]:
        return zip(truth[which].tolist(), answer[which].tolist(), images[which].tolist(), strict=True)

    return replace(
        report,
        confusion=matrix,
        confusion_pairs=tuple(
            ConfusionPair(class_name=names[i], predicted=names[j], images=number) for i, j, number in rows(slice(None))
        ),
        most_confused=tuple(
            Confused(class_name=names[i], predicted=names[j], images=number, share=number / report.per_class[i].support)
            for i, j, number in rows(worst)
        ),
    )


def binary(
    probabilities: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    positive: int,
    threshold: float,
) -> BinaryReport:
    """Describe how the positive of two classes is told from the other.

    Args:
        probabilities: of the positive class, float64 [n].
        labels: int64 [n].
        classes: two names.
        positive: index of the positive one.
        threshold: the answer is positive from this probability on.
    """
    is_positive = labels == positive
    answered = probabilities >= threshold
    true_positives, positives = int((answered & is_positive).sum()), int(is_positive.sum())
    false_positives, negatives = int((answered & ~is_positive).sum()), int((~is_positive).sum())
    true_negatives, false_negatives = negatives - false_positives, positives - true_positives
    correct = true_positives + true_negatives
    curve = roc_curve(probabilities, is_positive) if positives and negatives else None
    return BinaryReport(
        positive=classes[positive],
        negative=classes[1 - positive],
        auc=area_under(curve) if curve else None,
        threshold=threshold,
        true_positives=true_positives,
        false_positives=false_positives,
        true_negatives=true_negatives,
        false_negatives=false_negatives,
        accuracy=correct / len(labels),
        accuracy_interval=wilson(correct, len(labels)),
        precision=_ratio(true_positives, true_positives + false_positives),
        recall=_ratio(true_positives, positives),
        specificity=_ratio(true_negatives, negatives),
        f1=_ratio(2 * true_positives, 2 * true_positives + false_positives + false_negatives),
        roc=curve,
    )


def roc_curve(
    scores: npt.NDArray[np.float64], is_positive: npt.NDArray[np.bool_]
) -> tuple[tuple[float, float, float | None], ...]:
    """Return the corners of the ROC curve: (false positive rate, true positive rate, threshold).

    Equal scores are one step, and points on a straight line between two others are left out, as in scikit-learn.

    Args:
        scores: of the positive class, float64 [n].
        is_positive: bool [n], with at least one of each.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(is_positive[order])
    last = np.append(np.flatnonzero(np.diff(ordered)), len(scores) - 1)  # of each run of equal scores
    true, false = hits[last], last + 1 - hits[last]
    corner = np.ones(len(last), dtype=bool)
    corner[1:-1] = (np.diff(true, 2) != 0) | (np.diff(false, 2) != 0)
    positives, negatives = int(true[-1]), int(false[-1])
    points = zip(false[corner] / negatives, true[corner] / positives, ordered[last][corner], strict=True)
    return ((0.0, 0.0, None), *((float(x), float(y), float(threshold)) for x, y, threshold in points))


def area_under(curve: Sequence[tuple[float, float, float | None]]) -> float:
    """Return the area under a curve of `roc_curve`, by trapezoids."""
    x, y, _ = zip(*curve, strict=True)
    return float(np.trapezoid(y, x))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
