"""How good a network is on a split: one loop for validation in training and for `imgcls evaluate`.

Sums stay on the device, are reduced over all processes and divided once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from imgcls.data.batch import Batch, to_device
from imgcls.distributed import World
from imgcls.engine.assess.metrics import TOP, ClassCounts, Counts, summarise
from imgcls.errors import NonFiniteError
from imgcls.events import Pace, Report, Stepped
from imgcls.inference.halving import Halving
from imgcls.report import EvalReport


@dataclass(frozen=True)
class Answers:
    """What a network answers to a batch, on its device.

    Attributes:
        batch: images and labels.
        logits: float32 [B, classes].
        predicted: the most probable classes, int64 [B].
        losses: cross-entropy, float32 [B].
        in_top: whether the label is among the `TOP` most probable classes, bool [B].
    """

    batch: Batch
    logits: torch.Tensor
    predicted: torch.Tensor
    losses: torch.Tensor
    in_top: torch.Tensor


def judged(logits: torch.Tensor, batch: Batch) -> Answers:
    """Hold logits float32 [B, classes] against a batch's labels."""
    own, labels = logits.gather(1, batch.labels[:, None]), batch.labels[:, None]
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels
    before = ((logits > own) | ((logits == own) & earlier)).sum(1)  # of equal logits the first, as predict does
    return Answers(
        batch,
        logits,
        predicted=logits.argmax(1),
        losses=F.cross_entropy(logits, batch.labels, reduction="none"),
        in_top=before < TOP,
    )


class Sums:
    """Adds up answers of one process; what it keeps grows with the classes and not with their square."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self._counts = torch.zeros(3, classes, dtype=torch.int64, device=device)  # as `ClassCounts` has them
        # Loss and top hits; MPS has no float64.
        self._sums = torch.zeros(2, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)

    def add(self, answers: Answers) -> None:
        """Add a batch, fillers left out."""
        labels, real = answers.batch.labels, answers.batch.real
        right = answers.predicted == labels
        self._counts[0].index_add_(0, labels, real.to(torch.int64))
        self._counts[1].index_add_(0, answers.predicted, real.to(torch.int64))
        self._counts[2].index_add_(0, labels, (real & right).to(torch.int64))
        losses = answers.losses.to(self._sums.dtype)
        self._sums += torch.stack([(losses * real).sum(), (answers.in_top & real).sum()])

    def over(self, world: World) -> Counts:
        """Return the sums over all processes."""
        loss_sum, top_hits = world.sum(self._sums).tolist()
        rows = world.sum(self._counts).T.tolist()
        return Counts(tuple(ClassCounts(*row) for row in rows), loss_sum, int(top_hits))


@torch.inference_mode()
def validate(
    model: nn.Module,
    batches: Iterable[Batch],
    classes: Sequence[str],
    device: torch.device,
    *,
    split: str,
    amp: torch.dtype | None = None,
    world: World | None = None,
    each: Callable[[Answers], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> EvalReport:
    """Run a model over batches and summarise, without pairs of classes; the model is left in eval mode.

    Args:
        model: uint8 [B, 3, S, S] to logits [B, classes].
        batches: this process's, at least one; `reporting` makes them report progress.
        classes: names.
        device: where the model is.
        split: name for the report.
        amp: autocast type, None for float32.
        world: all processes.
        each: receives the answers to each batch.
        say: receives a sentence when memory is too short for a batch, which is then halved.

    Raises:
        NonFiniteError: the network gives NaN or infinite logits.
        ResourceError: there is not memory enough for a single image.
    """
    model.eval()
    sums, forward = Sums(len(classes), device), Halving(model, torch.cat, say)
    for batch in to_device(batches, device):
        with torch.autocast(device.type, amp, enabled=amp is not None):
            logits = forward(batch.images).float()
        answers = judged(logits, batch)
        sums.add(answers)
        if each is not None:
            each(answers)
    counts = sums.over(world or World())
    if not math.isfinite(counts.loss_sum):
        raise NonFiniteError(split)
    return summarise(counts, classes, split)


def reporting(
    batches: Iterable[Batch], total: int, split: str, report: Report, epoch: int = 0, pace: Pace | None = None
) -> Iterator[Batch]:
    """Yield batches, and report a few times a second, when the next one is asked for, how many are done.

    Args:
        batches: of one pass.
        total: how many there are.
        split: what they are of.
        report: receives `Stepped`.
        epoch: counts from 1; 0 outside of training.
        pace: when a report is due.
    """
    pace, images = pace or Pace(), 0
    for number, batch in enumerate(batches, start=1):
        yield batch
        images += len(batch.labels)
        if pace.due(done=number == total):
            report(Stepped(epoch, split, number, total, None, pace.rate(images)))
