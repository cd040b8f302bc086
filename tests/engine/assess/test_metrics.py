"""The truth about accuracy: equal to scikit-learn and torch, with an interval that holds what it promises."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics
import torch
from counting import summarise
from loading import loader
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from imgcls.data.images import ArrayImages
from imgcls.data.listing import Listing
from imgcls.engine.assess import metrics
from imgcls.engine.assess.metrics import ClassCounts, Counts, area_under, binary, roc_curve, with_pairs
from imgcls.engine.assess.validate import validate
from imgcls.engine.run.history import score
from imgcls.intervals import wilson
from imgcls.report import BinaryReport, Confused, EvalReport
from imgcls.schema import Preprocess

CLASSES = tuple("abcdefgh")
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Planted(nn.Module):
    """A network that answers with given logits; the first pixel of an image says which."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits[images[:, 0, 0, 0].long()]


def numbered(images: int) -> npt.NDArray[np.uint8]:
    """Return up to 256 images whose first pixel is their number."""
    pixels = np.zeros((images, 8, 8, 3), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(images)
    return pixels


def planted(labels: npt.NDArray[np.int64], classes: int, seed: int = 0) -> tuple[EvalReport, torch.Tensor]:
    """Evaluate random logits, right more often than not, in batches of 32."""
    images = ArrayImages.of("x", numbered(len(labels)))
    listing = Listing("x", images, labels.astype(np.int64), CLASSES[:classes])
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 1, (len(labels), classes))).float()
    logits[torch.arange(len(labels)), torch.from_numpy(labels)] += 1.5
    batches = loader(listing, 32, preprocess=Preprocess(size=8, resize=8))
    answers: list[torch.Tensor] = []
    report = validate(
        Planted(logits),
        batches.epoch(0),
        listing.classes,
        torch.device("cpu"),
        split="val",
        each=lambda found: answers.append(found.predicted),
    )
    return with_pairs(report, labels, torch.cat(answers).numpy()), logits


def lopsided(classes: int, seed: int, images: int = 200) -> Integers:
    """Draw labels, the last class the most frequent; each occurs."""
    shares = np.arange(1, classes + 1) / sum(range(classes + 1))
    return np.random.default_rng(seed).choice(classes, images, p=shares)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("classes", [2, 3, 8])
def test_every_number_equals_scikit_learns_and_torchs(classes: int, seed: int) -> None:
    labels = lopsided(classes, seed)
    report, logits = planted(labels, classes, seed)
    answers = logits.argmax(1).numpy()
    assert (report.split, report.images, report.classes) == ("val", 200, CLASSES[:classes])
    assert report.loss == pytest.approx(F.cross_entropy(logits.double(), torch.from_numpy(labels)).item(), abs=1e-6)
    assert report.accuracy == sklearn.metrics.accuracy_score(labels, answers)
    assert report.accuracy_interval == wilson(round(report.accuracy * 200), 200)
    table = sklearn.metrics.confusion_matrix(labels, answers)
    assert report.confusion == tuple(map(tuple, table.tolist()))
    assert [(pair.class_name, pair.predicted, pair.images) for pair in report.confusion_pairs] == [
        (CLASSES[i], CLASSES[j], table[i, j]) for i, j in zip(*np.nonzero(table), strict=True)
    ]
    for average in ("macro", "weighted"):
        rates = sklearn.metrics.precision_recall_fscore_support(labels, answers, average=average)[:3]
        ours = [getattr(report, f"{average}_{rate}") for rate in ("precision", "recall", "f1")]
        assert ours == pytest.approx(rates, abs=1e-12)
    columns = zip(*sklearn.metrics.precision_recall_fscore_support(labels, answers), strict=True)
    for row, (precision, recall, f1, support) in zip(report.per_class, columns, strict=True):
        assert (row.precision, row.recall, row.f1) == pytest.approx((precision, recall, f1), abs=1e-12)
        assert (row.support, row.accuracy) == (support, row.recall)
    if classes > 5:
        every = np.arange(classes)
        assert report.top5 == sklearn.metrics.top_k_accuracy_score(labels, logits.numpy(), k=5, labels=every)
        assert report.top5 is not None
        assert report.accuracy < report.top5 < 1
    else:
        assert report.top5 is None


def test_which_way_is_better_is_the_way_in_which_the_best_epoch_is_chosen() -> None:
    ways = {metric.name: metric.higher_is_better for metric in metrics.METRICS}
    ways |= {metric.name: metric.higher_is_better for metric in metrics.RATES}
    row = {"epoch": 1, "val_acc": 0.5, "val_loss": 0.5, "macro_f1": 0.5}
    for monitor, column, name in (
        ("val-acc", "val_acc", "accuracy"),
        ("val-loss", "val_loss", "loss"),
        ("macro-f1", "macro_f1", "f1"),
    ):
        assert (score(row | {column: 0.6}, monitor) > score(row, monitor)) == ways[name]


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_the_most_confused_are_the_largest_entries_beside_scikit_learns_diagonal(classes: int) -> None:
    """Ten at most, none of zero, and of equal ones first what comes first in the matrix."""
    labels = lopsided(classes, 1)
    report, logits = planted(labels, classes)
    table = sklearn.metrics.confusion_matrix(labels, logits.argmax(1).numpy())
    cells = [(-int(table[i, j]), i, j) for i in range(classes) for j in range(classes) if i != j and table[i, j]]
    assert report.most_confused == tuple(
        Confused(
            class_name=CLASSES[i],
            predicted=CLASSES[j],
            images=-negated,
            share=float(-negated / (labels == i).sum()),
        )
        for negated, i, j in sorted(cells)[:10]
    )
    counts = [pair.images for pair in report.most_confused]
    assert len(counts) == min(10, classes * (classes - 1))
    assert len(set(counts)) < len(counts) or classes < 8, "no ties: this test would be weak"


def test_without_mistakes_nothing_is_confused() -> None:
    assert summarise(np.diag([3, 0, 2]), 1.0, 5, ("a", "b", "c"), "val").most_confused == ()
    one = summarise(np.array([[3, 0, 1], [0, 0, 0], [0, 0, 2]]), 1.0, 5, ("a", "b", "c"), "val").most_confused
    assert one == (Confused(class_name="a", predicted="c", images=1, share=0.25),)


def test_memory_grows_with_the_classes_and_not_with_their_square() -> None:
    """A table of 4,000 x 4,000 counts would be 128 MB; 10,000 classes took 4.8 GB."""
    classes, labels = [f"c{number}" for number in range(4000)], np.arange(0, 4000, 50)
    logits = torch.zeros(len(labels), len(classes))
    logits[torch.arange(len(labels)), torch.from_numpy(labels) // 2] = 1
    listing = Listing("x", ArrayImages.of("x", numbered(len(labels))), labels, tuple(classes))
    batches = loader(listing, 8, preprocess=Preprocess(size=8, resize=8))
    answers: list[torch.Tensor] = []
    largest = Largest()  # type: ignore[no-untyped-call]
    tracemalloc.start()
    try:
        with largest:
            report = validate(
                Planted(logits),
                batches.epoch(0),
                listing.classes,
                torch.device("cpu"),
                split="val",
                each=lambda found: answers.append(found.predicted),
            )
        report = with_pairs(report, labels, torch.cat(answers).numpy())
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert 8 * 4000 <= largest.elements < 1e6, "of a batch's logits"
    assert (report.accuracy, report.confusion) == (1 / 80, None)
    pairs = [(pair.class_name, pair.predicted, pair.images) for pair in report.confusion_pairs]
    assert pairs == [(f"c{label}", f"c{label // 2}", 1) for label in labels]
    assert [(pair.class_name, pair.predicted, pair.share) for pair in report.most_confused] == [
        (f"c{label}", f"c{label // 2}", 1.0) for label in labels[1:11]
    ]


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees how many elements the largest tensor has that torch makes."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("classes", [1000, 1001])
def test_up_to_a_thousand_classes_there_is_a_whole_matrix(classes: int) -> None:
    """The pairs say the same for any number of classes."""
    labels = np.arange(300) * 7 % classes
    predicted = np.where(labels % 3 == 0, labels, labels // 2)
    parts = (labels, predicted, labels[labels == predicted])
    columns = np.stack([np.bincount(part, minlength=classes) for part in parts], axis=1).tolist()
    counts = Counts(tuple(ClassCounts(*column) for column in columns), 1.0, 0)
    names = [f"c{number}" for number in range(classes)]
    report = with_pairs(metrics.summarise(counts, names, "val"), labels, predicted)
    table = sklearn.metrics.confusion_matrix(labels, predicted, labels=np.arange(classes))
    rebuilt = np.zeros_like(table)
    for pair in report.confusion_pairs:
        rebuilt[names.index(pair.class_name), names.index(pair.predicted)] = pair.images
    np.testing.assert_array_equal(rebuilt, table)
    assert report.confusion == (tuple(map(tuple, table.tolist())) if classes == 1000 else None)
    assert report.accuracy == sklearn.metrics.accuracy_score(labels, predicted)


# Two classes ---------------------------------------------------------------------------------------------------------


def scored(seed: int, images: int = 150, decimals: int | None = None) -> tuple[Floats, Integers]:
    """Draw labels of both classes, and scores that are higher for class 1; rounded ones are often equal."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(images) % 3 % 2)
    scores = 1 / (1 + np.exp(-generator.normal(2 * labels - 1, 1.5)))
    return scores if decimals is None else scores.round(decimals), labels


def told_apart(scores: Floats, labels: Integers, positive: int = 1, threshold: float = 0.5) -> BinaryReport:
    """Describe two classes, a and b; `scores` are probabilities of b."""
    return binary(scores if positive else 1 - scores, labels, "ab", positive, threshold)


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("decimals", [None, 2, 1, 0], ids=lambda places: f"rounded to {places}")
def test_the_roc_curve_equals_scikit_learns_point_by_point(decimals: int | None, positive: int) -> None:
    for seed, images in [(0, 150), *((seed, 2 + seed % 12) for seed in range(60))]:
        scores, labels = scored(seed, images, decimals)
        report = told_apart(scores, labels, positive)
        truth, theirs = labels == positive, scores if positive else 1 - scores
        assert report.roc is not None
        x, y, thresholds = map(list, zip(*report.roc, strict=True))
        expected = sklearn.metrics.roc_curve(truth, theirs)
        np.testing.assert_allclose(x, expected[0], rtol=0, atol=1e-15)
        np.testing.assert_allclose(y, expected[1], rtol=0, atol=1e-15)
        assert thresholds == [None, *expected[2][1:]]
        assert np.isinf(expected[2][0])
        assert report.auc == pytest.approx(sklearn.metrics.roc_auc_score(truth, theirs), abs=1e-12)


def test_equal_scores_are_one_step() -> None:
    """Whichever comes first among them, the curve is the same."""
    scores, labels = np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 1, 0])
    corners: tuple[tuple[float, float, float | None], ...] = ((0, 0, None), (0, 1 / 3, 0.9), (0.5, 1, 0.5), (1, 1, 0.1))
    for order in ([0, 1, 2, 3, 4], [4, 2, 1, 3, 0], [3, 1, 2, 0, 4]):
        curve = roc_curve(scores[order], labels[order] == 1)
        assert curve == corners
        assert area_under(curve) == pytest.approx(1 - 0.5 * (2 / 3) / 2)


@pytest.mark.parametrize(
    ("scores", "auc"), [([0.1, 0.2, 0.8, 0.9], 1), ([0.9, 0.8, 0.2, 0.1], 0), ([0.7] * 4, 0.5)], ids=str
)
def test_the_ends_of_the_auc(scores: list[float], auc: float) -> None:
    report = told_apart(np.array(scores), np.array([0, 0, 1, 1]))
    assert report.auc == auc
    assert report.roc is not None
    assert (report.roc[0], report.roc[-1][:2]) == ((0, 0, None), (1, 1))


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("decimals", [None, 1], ids=["any", "rounded"])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.7, 1.0])
def test_the_rates_at_a_threshold_equal_scikit_learns(threshold: float, decimals: int | None, positive: int) -> None:
    """At 0 and at 1 some of them have nothing to be a rate of."""
    for seed in range(10):
        scores, labels = scored(seed, 40, decimals)
        report = told_apart(scores, labels, positive, threshold)
        truth = labels == positive
        answers = (scores if positive else 1 - scores) >= threshold
        assert (report.positive, report.negative, report.threshold) == ("ab"[positive], "ab"[1 - positive], threshold)
        expected = {
            "precision": sklearn.metrics.precision_score(truth, answers, zero_division=np.nan),
            "recall": sklearn.metrics.recall_score(truth, answers),
            "specificity": sklearn.metrics.recall_score(truth, answers, pos_label=False),
            "f1": sklearn.metrics.f1_score(truth, answers),
            "accuracy": sklearn.metrics.accuracy_score(truth, answers),
        }
        found = {name: getattr(report, name) for name in expected}
        assert found == pytest.approx({name: None if np.isnan(rate) else rate for name, rate in expected.items()})
        (true_negatives, false_positives), (false_negatives, true_positives) = sklearn.metrics.confusion_matrix(
            truth, answers, labels=[False, True]
        ).tolist()
        assert (report.true_positives, report.false_positives) == (true_positives, false_positives)
        assert (report.true_negatives, report.false_negatives) == (true_negatives, false_negatives)
        assert report.accuracy_interval == wilson(true_positives + true_negatives, 40)


def test_the_answer_is_positive_from_the_threshold_on() -> None:
    scores, labels = np.array([0.25, 0.5, 0.75]), np.array([0, 1, 1])
    counts = [told_apart(scores, labels, threshold=t).true_positives for t in (0.5, 0.5000001, 0.75, 0.7500001)]
    assert counts == [2, 1, 1, 0]


@pytest.mark.parametrize("only", [0, 1])
def test_with_one_class_alone_there_is_no_curve(only: int) -> None:
    report = told_apart(np.array([0.2, 0.6, 0.7]), np.full(3, only))
    assert (report.auc, report.roc) == (None, None)
    if only:
        assert (report.accuracy, report.precision, report.recall, report.specificity) == (2 / 3, 1, 2 / 3, None)
    else:
        assert (report.accuracy, report.precision, report.recall, report.specificity) == (1 / 3, 0, None, 1 / 3)
    nothing = told_apart(np.array([0.2, 0.3]), np.zeros(2, dtype=np.int64))
    assert (nothing.accuracy, nothing.precision, nothing.recall, nothing.f1) == (1, None, None, None)


# Classes without images, or without answers --------------------------------------------------------------------------


def test_a_class_without_images_has_no_rates_and_stays_out_of_the_averages() -> None:
    labels = np.array([0, 0, 1, 1, 1, 3, 3, 3, 3])  # nobody is of class c
    report, logits = planted(labels, 4, seed=3)
    answers = logits.argmax(1).numpy()
    empty = report.per_class[2]
    assert (empty.class_name, empty.support) == ("c", 0)
    assert [empty.accuracy, empty.accuracy_interval, empty.precision, empty.recall, empty.f1] == [None] * 5
    for average in ("macro", "weighted"):
        rates = sklearn.metrics.precision_recall_fscore_support(
            labels, answers, labels=[0, 1, 3], average=average, zero_division=0
        )
        ours = [getattr(report, f"{average}_{rate}") for rate in ("precision", "recall", "f1")]
        assert ours == pytest.approx(rates[:3])
    assert report.confusion is not None
    assert report.confusion[2] == (0, 0, 0, 0)
    assert sum(row[2] for row in report.confusion) > 0, "nothing is taken for c: this test would be weak"
    assert report.to_dict()["per_class"][2] == {
        "class": "c",
        "support": 0,
        "accuracy": None,
        "accuracy_interval": None,
        "precision": None,
        "recall": None,
        "f1": None,
    }


def test_a_class_that_is_never_predicted_has_precision_zero() -> None:
    report = summarise(np.array([[3, 0], [2, 0]]), 1.0, 5, ("a", "b"), "val")
    assert (report.per_class[1].precision, report.per_class[1].recall, report.per_class[1].f1) == (0.0, 0.0, 0.0)
    assert report.macro_f1 == pytest.approx((2 * 3 / 8) / 2)
