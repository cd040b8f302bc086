"""What is asked of a network: how a label weighs, the loss that is learnt, and which answers are right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Task:
    """One class for each image.

    Attributes:
        weights: of the classes, float32 [classes], on the device.
        smoothing: of the labels, 0 to 1.
    """

    weights: torch.Tensor
    smoothing: float = 0.0

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Return the sum over the images of the weighted cross-entropy, a scalar.

        An image's loss is its smoothed cross-entropy times the weight of its label. torch's own `weight=` would weigh
        the smoothed part of each *other* class by that class's weight: of 300 and 6 images the rare class is then
        answered for all.

        Args:
            logits: float32 [B, classes].
            labels: int64 [B].
            real: bool [B]; False for fillers, which count nothing.
        """
        losses = F.cross_entropy(logits, labels, label_smoothing=self.smoothing, reduction="none")
        return (losses * self.weights[labels] * real).sum()

    def right(self, logits: torch.Tensor, labels: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Return how many real images are answered by their own class, a scalar."""
        return ((logits.argmax(1) == labels) & real).sum()

    def label_weights(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return what each image weighs in the loss: float64 of the shape of `labels`."""
        return self.weights.cpu().numpy().astype(np.float64)[labels]


def balanced_weights(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return inverse class frequencies, float32 [classes], of mean 1 over the images (as scikit-learn's "balanced")."""
    return np.asarray(counts.sum() / (len(counts) * np.maximum(counts, 1)), dtype=np.float32)
