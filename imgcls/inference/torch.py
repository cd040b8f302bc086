"""The torch back end of `imgcls.inference`, and any back end as a torch module for `imgcls evaluate`.

Knows neither paths of images nor probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from imgcls import checkpoint
from imgcls.device import choose_amp, choose_device, full_float32
from imgcls.inference import model as inference
from imgcls.inference.model import Logits, Model
from imgcls.models.classifier import build_model
from imgcls.pixels.decode import Pixels
from imgcls.registry import BACKENDS
from imgcls.schema import ModelCard


@dataclass(frozen=True)
class Opened:
    """A trained model in torch's terms.

    Attributes:
        model: uint8 [B, 3, S, S] to logits [B, classes], in eval mode.
        card: what the file says of itself.
        holdout: sorted hashes of the names of the images held out in training, int64.
        holdout_content: hashes of their content in the same order, int64; empty: not recorded.
        device: where batches go.
        amp: autocast type, None for float32.
    """

    model: nn.Module
    card: ModelCard
    holdout: npt.NDArray[np.int64]
    holdout_content: npt.NDArray[np.int64]
    device: torch.device
    amp: torch.dtype | None


class Foreign(nn.Module):
    """A model of another back end."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.answer = model.logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images uint8 [B, 3, S, S] on the CPU to logits float32 [B, classes]."""
        return torch.from_numpy(self.answer(images.permute(0, 2, 3, 1).numpy()))


def open_model(path: str, device: str, amp: bool) -> Opened:
    """Open a checkpoint or an exported file, as `imgcls.inference.model.load` does.

    Raises:
        UsageError: no such file, or no such device.
        CheckpointError: the file is not a checkpoint, or damaged.
    """
    if inference.backend(path) != BACKENDS[""]:
        loaded = inference.load(path, device, amp)
        return Opened(Foreign(loaded), loaded.card, loaded.holdout, loaded.holdout_content, torch.device("cpu"), None)
    stored = checkpoint.load(path)
    place, _ = choose_device(device)
    precision, _ = choose_amp(amp, place)
    full_float32()
    model = build_model(stored.card, stored.model).to(place).eval()
    if place.type != "mps":
        model = model.in_channels_last()
    return Opened(model, stored.card, stored.holdout, stored.holdout_content, place, precision)


def load(path: str, device: str, amp: bool) -> Model:
    """Load a checkpoint; see `imgcls.inference.model.load`."""
    opened = open_model(path, device, amp)

    @torch.inference_mode()
    def logits(images: Pixels) -> Logits:
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).to(opened.device)
        with torch.autocast(opened.device.type, opened.amp, enabled=opened.amp is not None):
            answer = opened.model(batch)
        result: Logits = answer.float().cpu().numpy()
        return result

    return Model(opened.card, logits, opened.holdout, opened.holdout_content)
