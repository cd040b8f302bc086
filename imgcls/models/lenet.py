"""`lenet`: two 5x5 convolutions and three linear layers, as in LeNet-5 (LeCun et al. 1998), with ReLU. From 16 px."""

from torch import nn


def build(num_classes: int, image_size: int) -> nn.Module:
    """Return the network for inputs of `image_size` pixels: float [B, 3, S, S] to logits [B, num_classes]."""
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
