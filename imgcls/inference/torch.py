"""The torch back end: a checkpoint turned into a function from images to logits, of arrays and of tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from imgcls import checkpoint
from imgcls.device import choose_amp, choose_device, fit_threads, full_float32
from imgcls.inference.model import Logits, Model
from imgcls.models.classifier import build_model
from imgcls.pixels.decode import Pixels


@dataclass(frozen=True, kw_only=True)
class TensorModel(Model):
    """A model that takes tensors too, on its device.

    Attributes:
        network: uint8 [B, 3, S, S] to logits [B, classes], in eval mode.
        device: where batches go.
        amp: autocast type, None for float32.
    """

    network: nn.Module
    device: torch.device
    amp: torch.dtype | None = None


def load(path: str, device: str = "auto", amp: bool = False, few: bool = False) -> TensorModel:
    """Load a checkpoint; see `imgcls.inference.model.load`. A few images and many are the same to it."""
    fit_threads()
    stored = checkpoint.load(path)
    chosen, _ = choose_device(device)
    precision, _ = choose_amp(amp, chosen)
    full_float32()
    network = build_model(stored.card, stored.model).to(chosen).eval()
    if chosen.type != "mps":
        network = network.in_channels_last()

    @torch.inference_mode()
    def logits(images: Pixels) -> Logits:
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).to(chosen)
        with torch.autocast(chosen.type, precision, enabled=precision is not None):
            answer = network(batch)
        result: Logits = answer.float().cpu().numpy()
        return result

    return TensorModel(
        stored.card, logits, stored.holdout, stored.holdout_content, network=network, device=chosen, amp=precision
    )


class Foreign(nn.Module):
    """The network of another back end, which takes arrays."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.logits = model.logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images uint8 [B, 3, S, S] on the CPU to logits float32 [B, classes]."""
        return torch.from_numpy(self.logits(images.permute(0, 2, 3, 1).numpy()))


def with_tensors(model: Model) -> TensorModel:
    """Return a model of any back end as one that takes tensors."""
    if isinstance(model, TensorModel):
        return model
    return TensorModel(
        card=model.card,
        logits=model.logits,
        holdout=model.holdout,
        holdout_content=model.holdout_content,
        network=Foreign(model),
        device=torch.device("cpu"),
    )
