"""`simple-cnn`: one convolution, one pool, one linear layer: the smallest thing that learns. From 8 px."""

from torch import nn


def build(num_classes: int, image_size: int) -> nn.Module:
    """Return the network for inputs of `image_size` pixels: float [B, 3, S, S] to logits [B, num_classes]."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (image_size // 2) ** 2, num_classes),
    )
