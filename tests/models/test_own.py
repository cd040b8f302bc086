"""The small networks have the layers they are described with, and fit themselves to the input size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from imgcls import checkpoint
from imgcls.models.classifier import build_model, build_network
from imgcls.models.own import BUILDERS
from imgcls.models.resnet9 import Patches
from imgcls.models.surgery import count_parameters, has_batch_norm
from imgcls.schema import ModelCard, Preprocess, Pretrained


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


@pytest.mark.parametrize("arch", BUILDERS)
def test_fresh_weights_are_those_of_the_layers_own_draws(arch: str) -> None:
    torch.manual_seed(0)
    ours = build_network(arch, 7, 32).state_dict()
    torch.manual_seed(0)
    theirs = BUILDERS[arch](7, 32).state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_our_own_networks_need_no_torchvision_and_no_compiler() -> None:
    """Of the 7 s that importing both takes, torchvision and the compiler that it imports are 4."""
    program = """
import sys, torch
from imgcls.models.classifier import build_network
from imgcls.models.families import published
for arch in ("small-cnn", "bn-cnn", "simple-cnn", "lenet", "resnet9", "resnet9-half"):
    build_network(arch, 7, 32).eval()(torch.zeros(1, 3, 32, 32))
    with torch.device("meta"):
        build_network(arch, 7, 32)
    assert published(arch) is None
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torchvision", "torch._dynamo", "torch._inductor"} & set(done.stdout.split())


# resnet9 -------------------------------------------------------------------------------------------------------------


def convolution(inputs: int, outputs: int) -> int:
    """Count the parameters of a 3 x 3 convolution without bias and of its BatchNorm."""
    return 9 * inputs * outputs + 2 * outputs


@pytest.mark.parametrize(("arch", "width", "parameters"), [("resnet9", 64, 6_573_130), ("resnet9-half", 32, 1_646_122)])
def test_resnet9_is_eight_convolutions_two_of_them_twice_in_a_sum_and_a_linear_layer(
    arch: str, width: int, parameters: int
) -> None:
    """6.6 million parameters for ten classes, as in Page's series; of half the width a quarter."""
    network = build_network(arch, 10, 32)
    widths = [(27, width), (width, 2 * width), *[(2 * width,) * 2] * 2]
    widths += [(2 * width, 4 * width), (4 * width, 8 * width), *[(8 * width,) * 2] * 2]
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in convolutions] == widths
    counted = convolution(3, width) + sum(convolution(*pair) for pair in widths[1:]) + 8 * width * 10 + 10
    assert count_parameters(network) == counted == parameters
    assert has_batch_norm(network)
    assert layers(network)[-1] == f"Linear {8 * width}-10"


def test_resnet9_begins_with_the_cosine_transform_of_patches() -> None:
    patches = Patches()
    assert not list(patches.parameters())
    rows = patches.filters.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(27))
    grey = patches.filters.new_ones(1, 3, 5, 5)
    flat = F.conv2d(grey, patches.filters)[0, :, 1, 1]  # a patch without any change: only the first wave is there
    torch.testing.assert_close(flat, torch.tensor([27**0.5, *[0.0] * 26]), rtol=0, atol=1e-5)
    outputs = patches.train()(torch.rand(8, 3, 16, 16))
    torch.testing.assert_close(outputs.std((0, 2, 3), correction=0), torch.ones(27), rtol=0, atol=1e-2)


def test_a_residual_block_adds_to_its_input() -> None:
    """With convolutions that give nothing, the input comes out."""
    block = next(layer for layer in build_network("resnet9-half", 7, 8) if type(layer).__name__ == "Residual")  # type: ignore[attr-defined]
    images = torch.rand(2, 64, 4, 4)
    assert not torch.equal(block(images), images)
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    assert torch.equal(block(images), images)


@pytest.mark.parametrize("arch", ["resnet9", "resnet9-half"])
def test_resnet9_takes_sizes_from_8_px_and_comes_back_from_a_file_with_equal_logits(arch: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    card = ModelCard(
        arch=arch,
        arch_options={},
        classes=tuple("abcdefg"),
        preprocess=Preprocess(size=8, resize=8),
        pretrained=Pretrained(asked="no", used=None, reason="--no-pretrained"),
    )
    model = build_model(card)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = F.cross_entropy(model.train()(images), torch.tensor([0, 2, 4, 6]))
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    checkpoint.save(
        tmp_path / "best.pt", checkpoint.Checkpoint(card, model.network.state_dict(), np.array([], dtype=np.int64))
    )
    loaded = checkpoint.load(tmp_path / "best.pt")
    again = build_model(loaded.card, loaded.model).eval()
    with torch.inference_mode():
        assert torch.equal(again(images), model.eval()(images))
        for size in (8, 28, 64):
            assert build_network(arch, 7, size)(torch.zeros(2, 3, size, size)).shape == (2, 7)
