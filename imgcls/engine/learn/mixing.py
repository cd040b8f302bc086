"""Mixup and cutmix of a batch on its device; which and how much is a function of (seed, epoch, batch)."""

from __future__ import annotations

import math

import numpy as np
import torch


def mix(
    images: torch.Tensor, mixup: float, cutmix: float, generator: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Mix each image with its neighbour in the batch (the one before it, in a ring).

    Mixup is Zhang et al. 2018, cutmix Yun et al. 2019; with both, one of them at random.

    Args:
        images: uint8 [B, 3, S, S].
        mixup: parameter a of Beta(a, a); 0 is off.
        cutmix: likewise.
        generator: of this batch.

    Returns:
        Images (float in 0..255 after mixup, uint8 after cutmix) and the share of each image's own label; the rest
        belongs to `torch.roll(labels, 1)`.
    """
    use_cutmix = cutmix > 0 and (mixup == 0 or generator.random() < 0.5)
    own = float(generator.beta(cutmix, cutmix) if use_cutmix else generator.beta(mixup, mixup))
    others = images.roll(1, 0)
    if not use_cutmix:
        return torch.lerp(others.float(), images.float(), own), own
    size = images.shape[-1]
    half = size * math.sqrt(1 - own) / 2
    y, x = generator.random(2) * size
    top, bottom = (round(min(max(y + side, 0), size)) for side in (-half, half))
    left, right = (round(min(max(x + side, 0), size)) for side in (-half, half))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / size**2
