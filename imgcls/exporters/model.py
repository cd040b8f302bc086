"""What every format is made from: the network as its users call it, and the JSON that travels with it.

Knows no formats and no files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from imgcls.checkpoint import Checkpoint
from imgcls.inference.model import Logits, Model
from imgcls.models.classifier import Classifier, build_model
from imgcls.pixels.decode import Pixels
from imgcls.schema import ModelCard

INPUTS = {"uint8": "levels 0 to 255", "float32": "levels divided by 255, 0 to 1"}


class FromUnitRange(nn.Module):
    """A classifier for float32 images in 0..1, as most programs hand them over."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images float32 0..1 [B, 3, S, S] to logits [B, classes]."""
        logits: torch.Tensor = self.classifier(images * 255)
        return logits


@dataclass(frozen=True)
class Exportable:
    """A checkpoint's model, ready for a writer.

    Attributes:
        model: images of `input` type [B, 3, S, S] to logits float32 [B, classes], in eval mode, on the CPU.
        card: what the checkpoint says of itself.
        input: "uint8" (levels 0..255) or "float32" (0..1).
        holdout: hashes of the names of the images held out in training, int64.
        holdout_content: hashes of their content in the same order, int64; empty: not recorded.
    """

    model: nn.Module
    card: ModelCard
    input: str
    holdout: npt.NDArray[np.int64]
    holdout_content: npt.NDArray[np.int64]

    @property
    def example(self) -> torch.Tensor:
        """Two images to trace with; a batch of one would be taken for a constant."""
        size = self.card.preprocess.size
        return torch.zeros(2, 3, size, size, dtype=getattr(torch, self.input))

    @property
    def description(self) -> str:
        """The model card as JSON, with what goes in and comes out: stored in every export."""
        size, classes = self.card.preprocess.size, len(self.card.classes)
        signature: dict[str, Any] = {
            "input": {
                "name": "images",
                "type": self.input,
                "shape": ["batch", 3, size, size],
                "values": f"RGB, {INPUTS[self.input]}; normalisation is inside the network",
            },
            "output": {"name": "logits", "type": "float32", "shape": ["batch", classes], "values": "before softmax"},
        }
        return json.dumps(signature | self.card.to_dict())

    def as_model(self) -> Model:
        """Return the model as `predict` would call it."""
        return reloaded(self.model, self.description)


def exportable(checkpoint: Checkpoint, input: str) -> Exportable:
    """Build the model of a checkpoint for export.

    Raises:
        CheckpointError: its weights do not fit its card.
    """
    classifier = build_model(checkpoint.card, checkpoint.model).eval()
    model = classifier if input == "uint8" else FromUnitRange(classifier).eval()
    return Exportable(model, checkpoint.card, input, checkpoint.holdout, checkpoint.holdout_content)


def reloaded(model: Callable[[torch.Tensor], torch.Tensor], description: str) -> Model:
    """Turn a reloaded torch program into what the verification calls; all it knows is in the file's description."""
    values = json.loads(description)
    is_float = values["input"]["type"] == "float32"

    @torch.no_grad()
    def logits(pixels: Pixels) -> Logits:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        answer: Logits = model(images / 255 if is_float else images).numpy()
        return answer

    return Model(ModelCard.from_dict(values), logits, np.empty(0, dtype=np.int64))
