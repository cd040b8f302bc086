"""`evaluate`: how good a checkpoint is on a data set, from what was typed to a report and its files."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from imgcls import files
from imgcls.config import EvaluateConfig
from imgcls.data.files import FileLoader, choose_workers
from imgcls.data.listing import Listing
from imgcls.data.order import Order
from imgcls.data.pictures import Pictures
from imgcls.data.splits import for_evaluation, limited
from imgcls.engine.assess.metrics import binary, with_pairs
from imgcls.engine.assess.origin import findings, origin, seen_in_training
from imgcls.engine.assess.predictions import Rows, rows, write_folder, write_predictions
from imgcls.engine.assess.validate import Answers, reporting, validate
from imgcls.errors import UsageError, counted
from imgcls.events import Found, Report, Said, silent
from imgcls.inference.model import load, positive_index
from imgcls.inference.torch import TensorModel, with_tensors
from imgcls.pixels import dim
from imgcls.report import EvalReport
from imgcls.schema import ModelCard, Preprocess


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
    report: Report = silent,
    **options: Any,
) -> EvalReport:
    """Evaluate a checkpoint on a data set, and write the files that are asked for.

    Args:
        data: folder or data set name.
        ckpt: checkpoint of `imgcls train`, or `.onnx` file of `imgcls export`.
        report: receives progress and findings.
        options: out, predictions, split, positive, threshold, batch_size, limit, workers, device and amp, as
            `config.EvaluateConfig` has them.

    Raises:
        ImgclsError: as `evaluate_config`; WriteError when a file cannot be written.
    """
    config = EvaluateConfig(data=os.fspath(data), ckpt=os.fspath(ckpt), **options)
    evaluation = evaluate_config(config, report)
    evaluation.write(config.out, config.predictions)
    return evaluation.report


def evaluate_config(config: EvaluateConfig, report: Report = silent) -> Evaluation:
    """Evaluate a checkpoint on a data set, and write nothing yet.

    Args:
        config: everything there is to say; without a split, test if there is one, else validation (the images held
            out in training included), else all of a folder of class folders.
        report: receives progress and findings.

    Raises:
        UsageError: no such data, checkpoint, device or positive class.
        DataError: no such split, an unknown class, an image that cannot be read.
        CheckpointError: not a valid checkpoint.
        WriteError: the folder or the table cannot be written.
    """
    config.check_paths()
    ckpt, data = config.ckpt, config.data
    model = with_tensors(load(ckpt, config.device, config.amp))
    card = model.card
    index = _positive(card.classes, ckpt, config.positive, config.threshold)
    chosen, whole = for_evaluation(
        data, card.classes, split=config.split, holdout=model.holdout, content=model.holdout_content
    )
    listing = whole if config.limit is None else limited(whole, config.limit, seed=0)
    if config.out is not None:
        files.check_folder(Path(config.out))
    of, seen = origin(ckpt, card, data, listing), seen_in_training(card, whole.images)
    for finding in (*listing.findings, *findings(card, of, chosen, seen)):
        report(Found(finding))
    if config.amp:
        report(Said("mixed precision: answers may differ slightly from float32"))
    report(Said(f"evaluating {listing.where}: {counted(len(listing.images), 'image')} ({chosen})"))
    loader = _loader(model, listing, config.batch_size, config.workers)
    result, found = _answered(model, loader, listing, chosen, index or 0, report)
    if index is not None:
        cut = 0.5 if config.threshold is None else config.threshold
        two = binary(found["positive"], found["label"], card.classes, index, cut)
        result = replace(result, binary=two)
    return Evaluation(replace(result, seen_in_training=seen, origin=of), found, listing, card)


def _loader(model: TensorModel, listing: Listing, batch_size: int, workers: int | None) -> FileLoader:
    preprocess = model.card.preprocess
    return FileLoader(
        Pictures(listing.images, preprocess),
        listing.labels,
        Order(len(listing.images), batch_size),
        workers=int(choose_workers(workers, batch_size * 3 * preprocess.size**2).value),
        pin_memory=model.device.type == "cuda",
    )


def _answered(
    model: TensorModel, loader: FileLoader, listing: Listing, split: str, positive: int, report: Report
) -> tuple[EvalReport, Rows]:
    """Run a model over all images; return what is to be said of them together, and of each."""
    card = model.card
    parts: list[Rows] = []
    black: list[npt.NDArray[np.bool_]] = []

    def keep(answers: Answers) -> None:
        black.append(_nearly_black(answers.batch.images, card.preprocess))
        parts.append(rows(answers, positive))

    result = validate(
        model.network,
        reporting(loader.epoch(0), len(loader), split, report),
        card.classes,
        model.device,
        split=split,
        amp=model.amp,
        each=keep,
        say=lambda text: report(Said(text, warning=True)),
    )
    paths = [listing.images.path(int(index)) for index in np.concatenate(black).nonzero()[0]]
    if dark := [path for path in paths if dim.is_deep(path)]:
        report(Found(dim.finding(dark, counted(len(listing.images), "image"))))
    found = np.concatenate(parts)
    return with_pairs(result, found["label"], found["predicted"]), found


def _positive(classes: tuple[str, ...], ckpt: str, name: str | None, threshold: float | None) -> int | None:
    """Return the index of the positive of two classes; None when there are more."""
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
