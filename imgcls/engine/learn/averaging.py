"""An average of the weights over the optimizer steps, which is validated and kept with `--ema`."""

from __future__ import annotations

import copy

import torch

from imgcls.models.classifier import Classifier


class Average:
    """An exponential moving average of a network's weights; buffers are copied.

    The decay grows with the steps, (1 + n) / (10 + n) up to 0.9999 (as in TensorFlow's moving averages), so that
    short runs are not held back by their first weights.
    """

    def __init__(self, model: Classifier) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: Classifier, step: int) -> None:
        """Move the average towards `model` after optimizer step `step` (counts from 1)."""
        decay = min(0.9999, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
