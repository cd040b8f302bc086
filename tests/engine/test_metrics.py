"""The truth about accuracy: equal to scikit-learn and torch, with an interval that holds what it promises."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics
import torch
from torch import nn
from torch.nn import functional as F

from imgcls.data.images import ArrayImages
from imgcls.data.listing import Listing
from imgcls.data.loaders import Batches
from imgcls.engine.evaluate import count
from imgcls.engine.metrics import summarise, wilson
from imgcls.schema import EvalReport, Preprocess

CLASSES = tuple("abcdefgh")


class Planted(nn.Module):
    """A network that answers with given logits; the first pixel of an image says which."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits[images[:, 0, 0, 0].long()]


def planted(labels: npt.NDArray[np.int64], classes: int, seed: int = 0) -> tuple[EvalReport, torch.Tensor]:
    """Evaluate random logits, right more often than not, in batches of 32."""
    pixels = np.zeros((len(labels), 8, 8, 3), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(len(labels))
    listing = Listing("x", ArrayImages.of("x", pixels), labels.astype(np.int64), CLASSES[:classes])
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 1, (len(labels), classes))).float()
    logits[torch.arange(len(labels)), torch.from_numpy(labels)] += 1.5
    batches = Batches(listing, Preprocess(size=8, resize=8), batch_size=32)
    report = count(Planted(logits), batches, listing.classes, torch.device("cpu"), split="val")
    return report, logits


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_every_number_equals_scikit_learns_and_torchs(classes: int) -> None:
    labels = np.random.default_rng(1).choice(classes, 200, p=np.arange(1, classes + 1) / sum(range(classes + 1)))
    report, logits = planted(labels, classes)
    answers = logits.argmax(1).numpy()
    assert (report.split, report.images, report.classes) == ("val", 200, CLASSES[:classes])
    assert report.loss == pytest.approx(F.cross_entropy(logits.double(), torch.from_numpy(labels)).item(), abs=1e-6)
    assert report.accuracy == sklearn.metrics.accuracy_score(labels, answers)
    assert report.confusion == tuple(map(tuple, sklearn.metrics.confusion_matrix(labels, answers).tolist()))
    assert report.macro_f1 == pytest.approx(sklearn.metrics.f1_score(labels, answers, average="macro"))
    assert report.weighted_f1 == pytest.approx(sklearn.metrics.f1_score(labels, answers, average="weighted"))
    rates = zip(*sklearn.metrics.precision_recall_fscore_support(labels, answers), strict=True)
    for row, (precision, recall, f1, support) in zip(report.per_class, rates, strict=True):
        assert (row.precision, row.recall, row.f1) == pytest.approx((precision, recall, f1))
        assert (row.support, row.accuracy) == (support, row.recall)
    if classes > 5:
        every = np.arange(classes)
        assert report.top5 == sklearn.metrics.top_k_accuracy_score(labels, logits.numpy(), k=5, labels=every)
        assert report.top5 is not None
        assert report.accuracy < report.top5 < 1
    else:
        assert report.top5 is None


def test_a_class_without_images_has_no_rates_and_stays_out_of_the_averages() -> None:
    labels = np.array([0, 0, 1, 1, 1, 3, 3, 3, 3])  # nobody is of class c
    report, logits = planted(labels, 4, seed=3)
    answers = logits.argmax(1).numpy()
    empty = report.per_class[2]
    assert (empty.class_name, empty.support) == ("c", 0)
    assert [empty.accuracy, empty.accuracy_interval, empty.precision, empty.recall, empty.f1] == [None] * 5
    expected = sklearn.metrics.f1_score(labels, answers, labels=[0, 1, 3], average="macro", zero_division=0)
    assert report.macro_f1 == pytest.approx(expected)
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


@pytest.mark.parametrize(
    ("successes", "trials", "interval"),
    [  # Newcombe 1998, table I, method 3
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (20, 20, (0.8389, 1.0)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson_equals_the_textbook(successes: int, trials: int, interval: tuple[float, float]) -> None:
    assert wilson(successes, trials) == pytest.approx(interval, abs=5e-5)


@pytest.mark.parametrize(("truth", "trials"), [(0.5, 40), (0.9, 153), (0.97, 1000)])
def test_wilson_covers_the_truth_about_95_times_in_100(truth: float, trials: int) -> None:
    draws = np.random.default_rng(0).binomial(trials, truth, 4000)
    intervals = [wilson(int(successes), trials) for successes in draws]
    covered = sum(low <= truth <= high for low, high in intervals) / len(intervals)
    assert 0.93 <= covered <= 0.97
