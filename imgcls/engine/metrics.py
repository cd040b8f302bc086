"""The truth about accuracy: counts in, report out. Knows no tensors and no models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from imgcls.schema import ClassReport, EvalReport

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
    seen = [row for row in rows if row.support]
    f1 = [row.f1 or 0.0 for row in seen]
    return EvalReport(
        split=split,
        images=images,
        loss=loss_sum / images,
        accuracy=correct / images,
        accuracy_interval=wilson(correct, images),
        top5=top_hits / images if len(classes) > TOP else None,
        macro_f1=sum(f1) / len(f1),
        weighted_f1=sum(row.support * value for row, value in zip(seen, f1, strict=True)) / images,
        per_class=tuple(rows),
        classes=tuple(classes),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
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
