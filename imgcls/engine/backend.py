"""The torch back end of `imgcls.inference`: a checkpoint turned into a function from images to logits.

Knows neither paths of images nor probabilities.
"""

from __future__ import annotations

import torch

from imgcls import checkpoint
from imgcls.device import choose_amp, choose_device, full_float32
from imgcls.inference.model import Logits, Model
from imgcls.inference.pool import Pixels
from imgcls.models.build import build_model


def load(path: str, device: str, amp: bool) -> Model:
    """Load a checkpoint; see `imgcls.inference.model.load`."""
    loaded = checkpoint.load(path)
    place, _ = choose_device(device)
    precision, _ = choose_amp(amp, place)
    full_float32()
    model = build_model(loaded.card, loaded.model).to(place).eval()

    @torch.inference_mode()
    def logits(images: Pixels) -> Logits:
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).to(place)
        with torch.autocast(place.type, precision, enabled=precision is not None):
            answer = model(batch)
        result: Logits = answer.float().cpu().numpy()
        return result

    return Model(loaded.card, logits, loaded.holdout)
