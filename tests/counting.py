"""Reports of a planted confusion matrix. A module of its own, for the same reason as drawing.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from imgcls.engine.assess import metrics
from imgcls.engine.assess.metrics import ClassCounts, Counts
from imgcls.report import EvalReport


def summarise(
    table: npt.NDArray[np.int64], loss_sum: float, top_hits: int, classes: Sequence[str], split: str
) -> EvalReport:
    """Return the report of a matrix int64 [classes, classes]: (i, j) counts images of class i predicted as class j."""
    columns = np.stack([table.sum(axis=1), table.sum(axis=0), np.diag(table)], axis=1).tolist()
    counts = Counts(tuple(ClassCounts(*column) for column in columns), loss_sum, top_hits)
    labels, predicted = (np.repeat(index.ravel(), table.ravel()) for index in np.indices(table.shape))
    return metrics.with_pairs(metrics.summarise(counts, classes, split), labels, predicted)
