"""Counting right and wrong answers of a model over a split; validation and `imgcls evaluate` are this one code.

Knows no optimisation. Sums are reduced over all processes and divided once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from imgcls import files
from imgcls.config import EVALUATED, check_number, check_word
from imgcls.data.batch import Loader, to_device
from imgcls.data.files import FileLoader, choose_workers
from imgcls.data.listing import Listing
from imgcls.data.order import Order
from imgcls.data.pictures import Pictures
from imgcls.data.splits import for_evaluation, limited
from imgcls.distributed import World
from imgcls.engine.assess.metrics import TOP, binary, summarise, with_pairs
from imgcls.engine.assess.origin import findings, origin, seen_in_training
from imgcls.engine.assess.predictions import Rows, rows, write_folder, write_predictions
from imgcls.errors import CheckpointError, UsageError, counted
from imgcls.events import REPORT_SECONDS, Found, Report, Said, Stepped
from imgcls.inference.model import positive_index
from imgcls.inference.torch import open_model
from imgcls.pixels import dim
from imgcls.schema import EvalReport, ModelCard, Preprocess

Each = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]


def silent(event: object) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation: the report, and what its files are made from."""

    report: EvalReport
    found: Rows
    listing: Listing
    card: ModelCard

    def write(self, out: str | None, predictions: str | None) -> None:
        """Write the folder of `--out` and the CSV of `--predictions`.

        Raises:
            WriteError: the disk or a folder refuses one.
        """
        if predictions is not None:
            write_predictions(predictions, self.found, self.listing, self.card.classes)
        if out is not None:
            write_folder(Path(out), self.report, self.found, self.listing, self.card.preprocess)


def evaluate(
    data: str | os.PathLike[str],
    ckpt: str | os.PathLike[str] = "best.pt",
    *,
    out: str | os.PathLike[str] | None = None,
    predictions: str | os.PathLike[str] | None = None,
    **options: Any,
) -> EvalReport:
    """Evaluate a checkpoint on a data set.

    Args:
        data: folder or data set name.
        ckpt: checkpoint of `imgcls train`, or `.onnx` file of `imgcls export`.
        out: folder for report.json and the pictures.
        predictions: CSV file with one row per image, worst first.
        options: as `measure` has them.

    Raises:
        ImgclsError: as `measure`; WriteError when a file cannot be written.
    """
    out = None if out is None else os.fspath(out)
    predictions = None if predictions is None else os.fspath(predictions)
    evaluation = measure(os.fspath(data), os.fspath(ckpt), out=out, predictions=predictions, **options)
    evaluation.write(out, predictions)
    return evaluation.report


def measure(
    data: str,
    ckpt: str = "best.pt",
    *,
    split: str | None = None,
    positive: str | None = None,
    threshold: float | None = None,
    out: str | None = None,
    predictions: str | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    amp: bool = False,
    limit: int | None = None,
    report: Report = silent,
) -> Evaluation:
    """Evaluate a checkpoint on a data set, and write nothing yet.

    Args:
        data: folder or data set name.
        ckpt: checkpoint of `imgcls train`, or `.onnx` file of `imgcls export`.
        split: "train", "val" or "test"; None: test if there is one, else validation (the images held out in
            training included), else all of a folder of class folders.
        positive: of two classes, the one that `binary` is about; None: the second.
        threshold: of two classes, the probability from which the answer is positive; None: 0.5.
        out: folder that will be written; checked here, before the work.
        predictions: file that will be written; checked likewise.
        batch_size: images per forward pass.
        workers: loader processes; None: the CPUs this process may use, at most 8.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        amp: mixed precision, CUDA only; else float32.
        limit: at most this many images.
        report: receives progress and findings.

    Raises:
        UsageError: no such data, checkpoint, split, device or positive class, or a number out of its bounds.
        DataError: no such split, an unknown class, an image that cannot be read.
        CheckpointError: not a valid checkpoint.
        WriteError: `out` or `predictions` cannot be written.
    """
    if split is not None:
        check_word("--split", split, EVALUATED)
    check_number("--batch-size", batch_size, int, low=1)
    for flag, number, low in (("--workers", workers, 0), ("--limit", limit, 1)):
        if number is not None:
            check_number(flag, number, int, low)
    if out is not None:
        files.check_outside(out, data, "--out")
    if predictions is not None:
        files.check_result(predictions, "--predictions", data=data, kept=[ckpt], kind="CSV")
    opened = open_model(ckpt, device, amp)
    card = opened.card
    chosen_class = _positive(card.classes, ckpt, positive, threshold)
    chosen, whole = for_evaluation(
        data, card.classes, split=split, holdout=opened.holdout, content=opened.holdout_content
    )
    listing = whole if limit is None else limited(whole, limit, seed=0)
    if out is not None:
        files.check_folder(Path(out))
    of, seen = origin(ckpt, card, data, listing), seen_in_training(card, whole.images)
    for finding in (*listing.findings, *findings(card, of, chosen, seen)):
        report(Found(finding))
    if amp:
        report(Said("mixed precision: answers may differ slightly from float32"))
    report(Said(f"evaluating {listing.where}: {counted(len(listing.images), 'image')} ({chosen})"))
    batches = FileLoader(
        Pictures(listing.images, card.preprocess),
        listing.labels,
        Order(len(listing.images), batch_size),
        workers=int(choose_workers(workers, batch_size * 3 * card.preprocess.size**2).value),
        pin_memory=opened.device.type == "cuda",
    )
    parts: list[Rows] = []
    black: list[npt.NDArray[np.bool_]] = []

    def keep(
        images: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, predicted: torch.Tensor, losses: torch.Tensor
    ) -> None:
        black.append(_nearly_black(images, card.preprocess))
        parts.append(rows(logits, labels, predicted, losses, chosen_class or 0))

    result = count(
        *(opened.model, batches, card.classes, opened.device),
        split=chosen,
        amp=opened.amp,
        each=keep,
        report=report,
    )
    found = np.concatenate(parts)
    result = replace(with_pairs(result, found["label"], found["predicted"]), seen_in_training=seen, origin=of)
    paths = [listing.images.path(int(index)) for index in np.concatenate(black).nonzero()[0]]
    if dark := [path for path in paths if dim.is_deep(path)]:
        report(Found(dim.finding(dark, counted(len(listing.images), "image"))))
    if chosen_class is not None:
        shares, cut = found["positive"], 0.5 if threshold is None else threshold
        result = replace(result, binary=binary(shares, found["label"], card.classes, chosen_class, cut))
    return Evaluation(result, found, listing, card)


def _positive(classes: tuple[str, ...], ckpt: str, name: str | None, threshold: float | None) -> int | None:
    """Return the index of the positive of two classes; None when there are more."""
    if threshold is not None:
        check_number("--threshold", threshold, float, low=0, high=1)
    if len(classes) == 2:
        return 1 if name is None else positive_index(classes, name, ckpt)
    flag = "--positive" if name is not None else "--threshold"
    if name is not None or threshold is not None:
        raise UsageError(f"{flag} is for two classes, and {ckpt} has {len(classes)}; drop {flag}")
    return None


def _nearly_black(images: torch.Tensor, preprocess: Preprocess) -> npt.NDArray[np.bool_]:
    """Do what `pixels.dim.nearly_black` does, for images uint8 [B, 3, S, S], of which few leave their device."""
    frames = images.permute(0, 2, 3, 1)
    found = dim.nearly_black(frames[:, :: dim.STEP, :: dim.STEP].cpu().numpy(), preprocess)
    found[found] = dim.nearly_black(frames[torch.from_numpy(found).to(frames.device)].cpu().numpy(), preprocess)
    return found


@torch.inference_mode()
def count(
    model: nn.Module,
    batches: Loader,
    classes: Sequence[str],
    device: torch.device,
    *,
    split: str,
    epoch: int = 0,
    amp: torch.dtype | None = None,
    world: World | None = None,
    most_batches: int | None = None,
    each: Each | None = None,
    report: Report = silent,
) -> EvalReport:
    """Run a model over batches and summarise, without pairs of classes; the model is left in eval mode.

    Args:
        model: uint8 [B, 3, S, S] to logits [B, classes].
        batches: images and labels int64 [B].
        classes: names.
        device: where the model is.
        split: name for the report.
        epoch: for progress events.
        amp: autocast type, None for float32.
        world: all processes, each with its share of the batches.
        most_batches: stop after this many.
        each: receives each batch's images, logits [B, classes], labels, predicted classes and losses [B].
        report: receives progress.

    Raises:
        CheckpointError: the network gives NaN or infinite logits.
    """
    model.eval()
    counts = torch.zeros(3, len(classes), dtype=torch.int64, device=device)  # of the class, predicted as it, both
    sums = torch.zeros(2, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    total = min(len(batches), most_batches or len(batches))
    began = reported = time.monotonic()
    seen = 0
    for number, batch in enumerate(to_device(islice(batches.epoch(epoch), total), device), start=1):
        images, labels, real = batch.images, batch.labels, batch.real
        with torch.autocast(device.type, amp, enabled=amp is not None):
            logits = model(images).float()
        predicted = logits.argmax(1)  # of equal logits the first, as predict does
        better = (logits > logits.gather(1, labels[:, None])).sum(1)
        losses = F.cross_entropy(logits, labels, reduction="none")
        counts[0].index_add_(0, labels, real.to(torch.int64))
        counts[1].index_add_(0, predicted, real.to(torch.int64))
        counts[2].index_add_(0, labels, (real & (predicted == labels)).to(torch.int64))
        sums += torch.stack([(losses.to(sums.dtype) * real).sum(), ((better < TOP) & real).sum()])
        if each is not None:
            each(images, logits, labels, predicted, losses)
        seen += len(labels)
        if (now := time.monotonic()) - reported > REPORT_SECONDS or number == total:
            reported = now
            report(Stepped(epoch, split, number, total, None, seen / max(1e-9, now - began)))
    world = world or World()
    loss_sum, top_hits = world.sum(sums).tolist()
    if not loss_sum < float("inf"):
        raise CheckpointError(f"{split}: the network gives NaN or infinite logits; use an earlier checkpoint")
    return summarise(world.sum(counts).cpu().numpy(), loss_sum, int(top_hits), classes, split)
