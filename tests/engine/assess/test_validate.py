"""The loop over batches that counts right and wrong answers, for validation and evaluation alike."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from loading import loader
from torch import nn

from imgcls.data.batch import Batch, Loader
from imgcls.data.images import ArrayImages
from imgcls.data.listing import Listing
from imgcls.engine.assess.validate import reporting, validate
from imgcls.errors import NonFiniteError
from imgcls.events import Event, Pace, Stepped
from imgcls.schema import Preprocess

CPU = torch.device("cpu")


class Constant(nn.Module):
    """Answers every image alike."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor([logits])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        return self.logits.expand(len(images), -1)


@pytest.fixture
def batches() -> Loader:
    """Nine images of the classes a and b in turn, two at a time."""
    pixels = np.zeros((9, 8, 8, 3), dtype=np.uint8)
    listing = Listing("x", ArrayImages.of("x", pixels), np.arange(9) % 2, ("a", "b"))
    return loader(listing, 2, preprocess=Preprocess(size=8, resize=8))


def test_all_of_the_batches_are_counted_and_the_model_is_left_in_eval_mode(batches: Loader) -> None:
    model = Constant(1, 0).train()
    report = validate(model, batches.epoch(0), ("a", "b"), CPU, split="val")
    assert not model.training
    assert (report.images, report.accuracy) == (9, 5 / 9)
    few = validate(model, islice(batches.epoch(0), 2), ("a", "b"), CPU, split="val")
    assert (few.images, few.accuracy) == (4, 0.5)


@pytest.mark.parametrize("logit", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_an_error_of_its_own(batches: Loader, logit: float) -> None:
    with pytest.raises(NonFiniteError, match="val: the network gives NaN or infinite logits"):
        validate(Constant(0, logit), batches.epoch(0), ("a", "b"), CPU, split="val")


def test_progress_is_reported_when_it_is_due() -> None:
    """After a batch is done, that is when the next one is asked for."""
    said: list[Event] = []
    images = torch.zeros(2, 3, 8, 8)
    several = [Batch(images, torch.zeros(2), torch.ones(2)) for _ in range(3)]
    rest = reporting(several, 3, "val", said.append, epoch=4, pace=Pace(seconds=-1))
    next(rest)
    assert said == []
    assert len(list(rest)) == 2
    steps = [event for event in said if isinstance(event, Stepped)]
    assert [(step.epoch, step.phase, step.batch, step.batches) for step in steps] == [
        *((4, "val", 1, 3), (4, "val", 2, 3), (4, "val", 3, 3)),
    ]
    seldom: list[Event] = []
    assert len(list(reporting(several, 3, "val", seldom.append, pace=Pace(seconds=1000)))) == 3
    assert len(seldom) == 1, "the end is always reported"


def test_of_equal_logits_the_first_classes_are_the_most_probable() -> None:
    """A network that answers nothing has no five of six right for each image."""
    pixels, names = np.zeros((6, 8, 8, 3), dtype=np.uint8), tuple("abcdef")
    every = loader(
        Listing("x", ArrayImages.of("x", pixels), np.arange(6), names), 4, preprocess=Preprocess(size=8, resize=8)
    )
    report = validate(Constant(*[0.5] * 6), every.epoch(0), names, CPU, split="val")
    assert (report.accuracy, report.top5) == (1 / 6, 5 / 6)
    assert report.per_class[0].accuracy == 1
