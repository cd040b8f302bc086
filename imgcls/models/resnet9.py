"""`resnet9`: a residual network for small images, and `resnet9-half` of half its width. From 8 px.

The layers are those of Page's "How to train your ResNet" (2018), with which CIFAR-10 is learnt in a few epochs.
"""

from functools import partial

import torch
from torch import nn

LOGIT_SCALE = 0.125  # keeps the first steps of a high learning rate stable


class Residual(nn.Module):
    """Two convolutions whose result is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_conv(channels, channels), _conv(channels, channels))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Float [B, channels, H, W] to the same."""
        outputs: torch.Tensor = inputs + self.layers(inputs)
        return outputs


class Scale(nn.Module):
    """Multiply by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Any shape to the same."""
        return inputs * self.factor


def build(num_classes: int, image_size: int, width: int = 64) -> nn.Module:
    """Return the network: float [B, 3, S, S] to logits [B, num_classes]."""
    return nn.Sequential(
        _conv(3, width),
        _conv(width, 2 * width),
        nn.MaxPool2d(2),
        Residual(2 * width),
        _conv(2 * width, 4 * width),
        nn.MaxPool2d(2),
        _conv(4 * width, 8 * width),
        nn.MaxPool2d(2),
        Residual(8 * width),
        nn.MaxPool2d(image_size // 8),  # the adaptive one has no deterministic backward on CUDA
        nn.Flatten(),
        Scale(LOGIT_SCALE),
        nn.Linear(8 * width, num_classes),
    )


build_half = partial(build, width=32)


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
