"""One batch as training would see it, in numbers and pictures; built by the same calls as training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from imgcls.config import InspectConfig
from imgcls.data.batch import Batch
from imgcls.data.listing import match
from imgcls.data.splits import open_source
from imgcls.engine.decide.decided import choices
from imgcls.engine.decide.inputs import decide_inputs, training_batches, validation_batches
from imgcls.errors import DataError
from imgcls.models.classifier import Normalize
from imgcls.schema import Finding

FIRST = 8  # labels that are listed
SHOWN = 64  # pictures on the contact sheet
BLANK = 1.0  # standard deviation of levels below which a picture shows nothing


@dataclass(frozen=True)
class Inspection:
    """What `inspect-batch` shows.

    Attributes:
        images: uint8 [n, S, S, 3], at most 64 of the batch.
        labels: their classes, as indices.
        values: everything else, plain.
        findings: about the data set and this batch.
    """

    images: npt.NDArray[np.uint8]
    labels: tuple[int, ...]
    values: dict[str, Any]
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` writes."""
        return self.values | {"findings": [asdict(finding) for finding in self.findings]}


def inspect(config: InspectConfig) -> Inspection:
    """Load the first batch of the first epoch.

    Args:
        config: the data settings of `train`, and the split: "train" (shuffled, augmented) or "val" (as it is
            validated).

    Raises:
        UsageError, DataError, CheckpointError: as training would.
    """
    config.check_paths()
    inputs, split = decide_inputs(config), config.split
    splits = inputs.splits
    batches = (training_batches if split == "train" else validation_batches)(replace(inputs, workers=0), config)
    if batches is None:
        raise DataError(f"{config.data}: no validation images; type --split train")
    batch = next(batches.epoch(1))
    labels = batch.labels.tolist()
    parts = {"train": splits.train} | ({"val": splits.val} if splits.val else {})
    findings = list(splits.findings)
    if "test" in (source := open_source(config.data)).splits:
        try:
            parts["test"] = match(source.splits["test"](), splits.classes)
        except DataError as error:  # training never looks at it
            advice = "train never looks there, evaluate cannot use it"
            findings.append(Finding("test-without-labels", "note", str(error), advice))
    values = {
        "split": split,
        "source": splits.source,
        **_numbers(batch, Normalize(inputs.preprocess.mean, inputs.preprocess.std), splits.classes),
        "preprocessing": str(inputs.preprocess),
        "augmentation": str(inputs.augmentation) if split == "train" else "none",
        "decided": [asdict(replace(choice, value=str(choice.value))) for choice in choices(inputs.decided)],
        "class_to_idx": {name: index for index, name in enumerate(splits.classes)},
        "counts": {
            name: dict(zip(splits.classes, part.counts().tolist(), strict=True)) for name, part in parts.items()
        },
    }
    findings += _blank(batch.images, [splits.classes[label] for label in labels])
    pixels = batch.images[:SHOWN].permute(0, 2, 3, 1).contiguous().numpy()
    return Inspection(pixels, tuple(labels[:SHOWN]), values, tuple(findings))


def _numbers(batch: Batch, normalize: Normalize, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return what a batch's images and labels are, before and after they are normalized."""
    images, labels = batch.images, batch.labels
    scaled = images.double() / 255
    mean, std = (found((0, 2, 3)).tolist() for found in (scaled.mean, scaled.std))
    first = [[label, classes[label]] for label in labels[:FIRST].tolist()]
    return {
        "images": _range(images) | {"shape": list(images.shape), "mean": mean, "std": std},
        "normalized": _range(normalize(images)),
        "labels": {"shape": list(labels.shape), "dtype": _dtype(labels), "first": first},
    }


def _blank(images: torch.Tensor, names: list[str]) -> list[Finding]:
    """Find pictures of one colour, which usually means a failed download or conversion."""
    deviation = images.double().flatten(2).std(2).amax(1)  # of the channel that varies most
    blank = (deviation < BLANK).nonzero().flatten().tolist()
    if not blank:
        return []
    shown = ", ".join(sorted({names[index] for index in blank})[:5])
    message = f"{len(blank)} of {len(images)} images in this batch show one colour only (class {shown})"
    return [Finding("blank-images", "warning", message, "look at the files; remove those that failed to convert")]


def _range(values: torch.Tensor) -> dict[str, Any]:
    return {"dtype": _dtype(values), "min": values.min().item(), "max": values.max().item()}


def _dtype(values: torch.Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
