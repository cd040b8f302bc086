"""Counting right and wrong answers of a model over a split; validation and `imgcls evaluate` are this one code.

Knows no optimisation. Sums are reduced over all processes and divided once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice

import torch
from torch import nn
from torch.nn import functional as F

from imgcls import checkpoint
from imgcls.data.loaders import Batches, choose_workers
from imgcls.data.splits import for_evaluation
from imgcls.device import choose_amp, choose_device, full_float32
from imgcls.distributed import World
from imgcls.engine.metrics import TOP, summarise
from imgcls.errors import CheckpointError
from imgcls.events import REPORT_SECONDS, Found, Report, Said, Stepped
from imgcls.models.build import build_model
from imgcls.schema import EvalReport


def silent(event: object) -> None:
    """Report to nobody."""


def evaluate(
    data: str,
    ckpt: str = "best.pt",
    *,
    split: str | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    amp: bool = False,
    limit: int | None = None,
    report: Report = silent,
) -> EvalReport:
    """Evaluate a checkpoint on a data set.

    Args:
        data: folder or data set name.
        ckpt: checkpoint of `imgcls train`.
        split: "train", "val" or "test"; None: test if there is one, else validation (the images held out in
            training included), else all of a folder of class folders.
        batch_size: images per forward pass.
        workers: loader processes; None: the CPUs this process may use, at most 8.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        amp: mixed precision, CUDA only; else float32.
        limit: at most this many images.
        report: receives progress and findings.

    Raises:
        UsageError: no such data, checkpoint or device.
        DataError: no such split, an unknown class, an image that cannot be read.
        CheckpointError: not a valid checkpoint.
    """
    loaded = checkpoint.load(ckpt)
    place, _ = choose_device(device)
    precision, _ = choose_amp(amp, place)
    full_float32()
    card = loaded.card
    chosen, listing = for_evaluation(data, card.classes, split=split, holdout=loaded.holdout, limit=limit)
    for finding in listing.findings:
        report(Found(finding))
    if amp:
        report(Said("mixed precision: answers may differ slightly from float32"))
    report(Said(f"evaluating {listing.where}: {len(listing.images)} images ({chosen})"))
    model = build_model(card, loaded.model).to(place)
    batches = Batches(
        listing,
        card.preprocess,
        batch_size=batch_size,
        workers=int(choose_workers(workers, batch_size * 3 * card.preprocess.size**2).value),
        pin_memory=place.type == "cuda",
    )
    return count(model, batches, card.classes, place, split=chosen, amp=precision, report=report)


@torch.inference_mode()
def count(
    model: nn.Module,
    batches: Batches,
    classes: Sequence[str],
    device: torch.device,
    *,
    split: str,
    epoch: int = 0,
    amp: torch.dtype | None = None,
    world: World | None = None,
    most_batches: int | None = None,
    report: Report = silent,
) -> EvalReport:
    """Run a model over batches and summarise; the model is left in eval mode.

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
        report: receives progress.

    Raises:
        CheckpointError: the network gives NaN or infinite logits.
    """
    model.eval()
    confusion = torch.zeros(len(classes) ** 2, dtype=torch.int64, device=device)
    sums = torch.zeros(2, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    total = min(len(batches), most_batches or len(batches))
    began = reported = time.monotonic()
    seen = 0
    for number, batch in enumerate(islice(batches.epoch(epoch), total), start=1):
        images, labels, real = (part.to(device, non_blocking=True) for part in (batch.images, batch.labels, batch.real))
        with torch.autocast(device.type, amp, enabled=amp is not None):
            logits = model(images).float()
        top = logits.topk(min(TOP, len(classes)), dim=1).indices
        losses = F.cross_entropy(logits, labels, reduction="none")
        confusion.index_add_(0, labels * len(classes) + top[:, 0], real.to(torch.int64))
        sums += torch.stack([(losses * real).sum(), ((top == labels[:, None]).any(1) & real).sum()])
        seen += len(labels)
        if (now := time.monotonic()) - reported > REPORT_SECONDS or number == total:
            reported = now
            report(Stepped(epoch, split, number, total, None, seen / max(1e-9, now - began)))
    world = world or World()
    loss_sum, top_hits = world.sum(sums).tolist()
    if not loss_sum < float("inf"):
        raise CheckpointError(f"{split}: the network gives NaN or infinite logits; use an earlier checkpoint")
    table = world.sum(confusion).reshape(len(classes), len(classes)).cpu().numpy()
    return summarise(table, loss_sum, int(top_hits), classes, split)
