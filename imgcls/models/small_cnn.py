"""`small-cnn`: three convolutions, a global average and one linear layer. Any input size from 8 px."""

from torch import nn


def build(num_classes: int, image_size: int) -> nn.Module:
    """Return the network: float [B, 3, S, S] to logits [B, num_classes]."""
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
