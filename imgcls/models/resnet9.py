"""`resnet9`: a residual network for small images, and `resnet9-half` of half its width. From 8 px.

The layers are those of Page's "How to train your ResNet" (2018), with which CIFAR-10 is learnt in a few epochs. As in
the later articles of that series, whitened patches come first, and pooling stands before BatchNorm, which then has a
quarter of the pixels to normalise.
"""

from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

LOGIT_SCALE = 0.125  # keeps the first steps of a high learning rate stable


class Patches(nn.Module):
    """The cosine transform (DCT-II) over colours, rows and columns of each 3 x 3 patch, its 27 numbers normalised.

    It is close to whitening, whatever the pictures: with it two epochs of CIFAR-10 reach 80.6 %, with a learnt
    convolution in its place 79.8 % (one seed).
    """

    filters: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        # By NumPy: on the meta device, where checkpoints are checked, torch's norm imports its compiler, 4.5 s.
        waves = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
        filters = np.einsum("ac,ij,kl->aikcjl", waves, waves, waves).reshape(27, 3, 3, 3)
        self.register_buffer("filters", torch.tensor(filters, dtype=torch.float32))
        self.normalised = nn.BatchNorm2d(27, affine=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Float [B, 3, H, W] to [B, 27, H, W]."""
        outputs: torch.Tensor = self.normalised(F.conv2d(inputs, self.filters, padding=1))
        return outputs


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
        Patches(),
        _conv(27, width, kernel=1),
        _conv(width, 2 * width, pool=True),
        Residual(2 * width),
        _conv(2 * width, 4 * width, pool=True),
        _conv(4 * width, 8 * width, pool=True),
        Residual(8 * width),
        nn.MaxPool2d(image_size // 8),  # the adaptive one has no deterministic backward on CUDA
        nn.Flatten(),
        Scale(LOGIT_SCALE),
        nn.Linear(8 * width, num_classes),
    )


build_half = partial(build, width=32)


def _conv(inputs: int, outputs: int, kernel: int = 3, pool: bool = False) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    pooling = [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(convolution, *pooling, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
