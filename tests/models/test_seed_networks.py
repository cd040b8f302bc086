"""The four small networks have the layers they are described with, and fit themselves to the input size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from imgcls.models.build import build_network


def layers(network: nn.Module) -> list[str]:
    """Name each layer with the numbers that matter: `Conv2d 3-16`, `Linear 128-7`, `ReLU`."""
    names = []
    for layer in network.children():
        name = type(layer).__name__
        if isinstance(layer, nn.Conv2d):
            name += f" {layer.in_channels}-{layer.out_channels}"
        elif isinstance(layer, nn.Linear):
            name += f" {layer.in_features}-{layer.out_features}"
        elif isinstance(layer, nn.BatchNorm2d):
            name += f" {layer.num_features}"
        elif isinstance(layer, nn.Dropout):
            name += f" {layer.p}"
        names.append(name)
    return names


def test_small_cnn_is_three_convolutions_a_global_average_and_a_linear_layer() -> None:
    assert layers(build_network("small-cnn", 7, 32)) == [
        *("Conv2d 3-32", "ReLU", "MaxPool2d"),
        *("Conv2d 32-64", "ReLU", "MaxPool2d"),
        *("Conv2d 64-128", "ReLU", "AdaptiveAvgPool2d"),
        *("Flatten", "Linear 128-7"),
    ]


def test_bn_cnn_is_three_blocks_of_two_convolutions_with_batch_norm_then_512_dropout_and_the_head() -> None:
    assert layers(build_network("bn-cnn", 7, 32)) == [
        *("Conv2d 3-64", "BatchNorm2d 64", "ReLU", "Conv2d 64-64", "BatchNorm2d 64", "ReLU", "MaxPool2d"),
        *("Conv2d 64-128", "BatchNorm2d 128", "ReLU", "Conv2d 128-128", "BatchNorm2d 128", "ReLU", "MaxPool2d"),
        *("Conv2d 128-256", "BatchNorm2d 256", "ReLU", "Conv2d 256-256", "BatchNorm2d 256", "ReLU", "MaxPool2d"),
        *("Flatten", "Linear 4096-512", "ReLU", "Dropout 0.5", "Linear 512-7"),
    ]


def test_simple_cnn_is_one_convolution_one_pool_and_a_linear_layer() -> None:
    assert layers(build_network("simple-cnn", 7, 32)) == [
        *("Conv2d 3-16", "ReLU", "MaxPool2d", "Flatten", "Linear 4096-7")
    ]


def test_lenet_is_two_convolutions_and_three_linear_layers() -> None:
    """At 32 px these are the sizes of LeNet-5: 400, 120, 84."""
    assert layers(build_network("lenet", 10, 32)) == [
        *("Conv2d 3-6", "ReLU", "MaxPool2d", "Conv2d 6-16", "ReLU", "MaxPool2d"),
        *("Flatten", "Linear 400-120", "ReLU", "Linear 120-84", "ReLU", "Linear 84-10"),
    ]


@pytest.mark.parametrize("arch", ["small-cnn", "bn-cnn", "simple-cnn", "lenet"])
@pytest.mark.parametrize("size", [16, 17, 30, 33, 64])
def test_a_network_fits_itself_to_the_input_size(arch: str, size: int) -> None:
    """Odd sides too: pooling rounds down, and the linear layer must count with the same rounding."""
    network = build_network(arch, 7, size)
    assert network(torch.rand(2, 3, size, size)).shape == (2, 7)
