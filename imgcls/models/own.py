"""Our own networks, small and quick; those of two screens of layers have a file of their own.

All learn from scratch: there are no published weights of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from imgcls.models import resnet9
from imgcls.models.families import Family

BN_CNN_WIDTHS = (64, 128, 256)


def small_cnn(num_classes: int, image_size: int) -> nn.Module:
    """Return three convolutions, a global average and one linear layer."""
    del image_size  # the global average takes any
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )


def bn_cnn(num_classes: int, image_size: int) -> nn.Module:
    """Return three blocks of two convolutions with BatchNorm, then two linear layers."""
    layers: list[nn.Module] = []
    channels = 3
    for width in BN_CNN_WIDTHS:
        layers += [*_conv_bn(channels, width), *_conv_bn(width, width), nn.MaxPool2d(2)]
        channels = width
    features = channels * (image_size // 2 ** len(BN_CNN_WIDTHS)) ** 2
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(features, 512),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(512, num_classes),
    )


def simple_cnn(num_classes: int, image_size: int) -> nn.Module:
    """Return one convolution, one pool and one linear layer: the smallest thing that learns."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (image_size // 2) ** 2, num_classes),
    )


def lenet(num_classes: int, image_size: int) -> nn.Module:
    """Return two 5x5 convolutions and three linear layers, as in LeNet-5 (LeCun et al. 1998), with ReLU."""
    side = ((image_size - 4) // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(3, 6, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * side**2, 120),
        nn.ReLU(inplace=True),
        nn.Linear(120, 84),
        nn.ReLU(inplace=True),
        nn.Linear(84, num_classes),
    )


def _conv_bn(inputs: int, outputs: int) -> list[nn.Module]:
    # BatchNorm's own shift makes a bias of the convolution useless.
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


BUILDERS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "small-cnn": small_cnn,
    "bn-cnn": bn_cnn,
    "simple-cnn": simple_cnn,
    "lenet": lenet,
    "resnet9": resnet9.build,
    "resnet9-half": resnet9.build_half,
}


def build(arch: str, num_classes: int, image_size: int) -> nn.Module:
    """Return a network for inputs of `image_size` pixels: float [B, 3, S, S] to logits [B, num_classes]."""
    return BUILDERS[arch](num_classes, image_size)


FAMILY = Family(name="imgcls", build=build, smallest={"lenet": 16})
