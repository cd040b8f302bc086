"""The truth about accuracy: counts in, report out. Knows no tensors and no models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from imgcls.schema import BinaryReport, ClassReport, Confused, EvalReport

TOP = 5  # top-k accuracy that is reported, where there are more classes than that


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a proportion (Wilson 1927), as fractions; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def summarise(
    confusion: npt.NDArray[np.int64], loss_sum: float, top_hits: int, classes: Sequence[str], split: str
) -> EvalReport:
    """Turn counts into a report.

    Args:
        confusion: int64 [classes, classes]; entry (i, j) counts images of class i predicted as class j.
        loss_sum: sum of the cross-entropy over all images.
        top_hits: images whose class is among the `TOP` most probable.
        classes: names.
        split: which images these were.
    """
    images, correct = int(confusion.sum()), int(np.trace(confusion))
    rows = [_class_report(confusion, index, name) for index, name in enumerate(classes)]
    averages = {}
    for name in ("precision", "recall", "f1"):
        rates = [(row.support, getattr(row, name)) for row in rows if row.support]
        averages[f"macro_{name}"] = sum(rate for _, rate in rates) / len(rates)
        averages[f"weighted_{name}"] = sum(support * rate for support, rate in rates) / images
    return EvalReport(
        split=split,
        images=images,
        loss=loss_sum / images,
        accuracy=correct / images,
        accuracy_interval=wilson(correct, images),
        top5=top_hits / images if len(classes) > TOP else None,
        **averages,
        per_class=tuple(rows),
        classes=tuple(classes),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        most_confused=_most_confused(confusion, classes),
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


def _most_confused(confusion: npt.NDArray[np.int64], classes: Sequence[str], most: int = 10) -> tuple[Confused, ...]:
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(int(cell) // len(classes), int(cell) % len(classes)) for cell in order]
    return tuple(
        Confused(
            class_name=classes[true],
            predicted=classes[answer],
            images=int(wrong[true, answer]),
            share=float(wrong[true, answer] / confusion[true].sum()),
        )
        for true, answer in pairs
        if wrong[true, answer]
    )


def _class_report(confusion: npt.NDArray[np.int64], index: int, name: str) -> ClassReport:
    hits, support = int(confusion[index, index]), int(confusion[index].sum())
    predicted = int(confusion[:, index].sum())
    if support == 0:
        return ClassReport(
            class_name=name, support=0, accuracy=None, accuracy_interval=None, precision=None, recall=None, f1=None
        )
    return ClassReport(
        class_name=name,
        support=support,
        accuracy=hits / support,
        accuracy_interval=wilson(hits, support),
        precision=hits / predicted if predicted else 0.0,
        recall=hits / support,
        f1=2 * hits / (support + predicted),
    )
