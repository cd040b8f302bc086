"""`bn-cnn`: three blocks of two convolutions with BatchNorm, then two linear layers. From 8 px."""

from torch import nn

WIDTHS = (64, 128, 256)


def build(num_classes: int, image_size: int) -> nn.Module:
    """Return the network for inputs of `image_size` pixels: float [B, 3, S, S] to logits [B, num_classes]."""
    layers: list[nn.Module] = []
    channels = 3
    for width in WIDTHS:
        layers += [*_conv_bn(channels, width), *_conv_bn(width, width), nn.MaxPool2d(2)]
        channels = width
    features = channels * (image_size // 2 ** len(WIDTHS)) ** 2
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(features, 512),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(512, num_classes),
    )


def _conv_bn(inputs: int, outputs: int) -> list[nn.Module]:
    # BatchNorm's own shift makes a bias of the convolution useless.
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
