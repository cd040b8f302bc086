"""The truth about accuracy: counts in, report out. Knows no tensors and no models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from imgcls.schema import BinaryReport, ClassReport, Confused, ConfusionPair, EvalReport

TOP = 5  # top-k accuracy that is reported, where there are more classes than that
MOST_SQUARE = 1000  # classes up to which there is a whole confusion matrix; of 1,000 it is 9 MB of JSON


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
    counts: npt.NDArray[np.int64], loss_sum: float, top_hits: int, classes: Sequence[str], split: str
) -> EvalReport:
    """Turn counts into a report, all but which class was taken for which: see `with_pairs`.

    Args:
        counts: int64 [3, classes]; for each class its images, the images predicted as it, and the images that are
            both. A class x class table would need 3.8 GB for 21,841 classes.
        loss_sum: sum of the cross-entropy over all images.
        top_hits: images whose class is among the `TOP` most probable.
        classes: names.
        split: which images these were.
    """
    assert counts.shape == (3, len(classes))
    images, correct = int(counts[0].sum()), int(counts[2].sum())
    rows = [_class_report(name, *column) for name, column in zip(classes, counts.T.tolist(), strict=True)]
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
            ConfusionPair(class_name=names[i], predicted=names[j], images=count) for i, j, count in rows(slice(None))
        ),
        most_confused=tuple(
            Confused(class_name=names[i], predicted=names[j], images=count, share=count / report.per_class[i].support)
            for i, j, count in rows(worst)
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


def _class_report(name: str, support: int, predicted: int, hits: int) -> ClassReport:
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
