"""Any network gets the stem and dropout asked for, and says which of its layers give the logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from imgcls.errors import UsageError
from imgcls.models.classifier import build_network
from imgcls.models.families import has_small_stem
from imgcls.models.surgery import count_parameters, has_batch_norm, head, last_layers

# Stem ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["resnet18", "resnext50_32x4d", "wide_resnet50_2"])
def test_the_small_stem_is_3x3_without_stride_or_pooling(arch: str) -> None:
    with torch.device("meta"):
        network: Any = build_network(arch, 7, 32, stem="small")
        standard: Any = build_network(arch, 7, 32)
    assert (network.conv1.kernel_size, network.conv1.stride, network.conv1.padding) == ((3, 3), (1, 1), (1, 1))
    assert network.conv1.bias is None
    assert isinstance(network.maxpool, nn.Identity)
    assert (standard.conv1.kernel_size, standard.conv1.stride) == ((7, 7), (2, 2))
    assert isinstance(standard.maxpool, nn.MaxPool2d)
    assert network(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 7)


def test_the_small_stem_keeps_four_times_the_detail_each_way() -> None:
    images = torch.zeros(2, 3, 32, 32, device="meta")
    for stem, side in (("small", 4), ("standard", 1)):
        with torch.device("meta"):
            network: Any = build_network("resnet18", 7, 32, stem=stem)
        seen: list[torch.Size] = []
        network.layer4.register_forward_hook(lambda _module, _inputs, output, seen=seen: seen.append(output.shape))
        network(images)
        assert seen == [torch.Size([2, 512, side, side])]


@pytest.mark.parametrize("arch", ["small-cnn", "resnet9", "resnet9-half", "vgg11", "densenet121", "regnet_x_400mf"])
def test_other_networks_have_no_small_stem(arch: str) -> None:
    assert not has_small_stem(arch)
    with pytest.raises(UsageError, match=f"--stem small: {arch} has none") as caught:
        build_network(arch, 7, 32, stem="small")
    assert "\n" not in str(caught.value)


# Dropout -------------------------------------------------------------------------------------------------------------

WITH_LAYER = ["bn-cnn", "efficientnet_b0", "googlenet", "inception_v3", "mobilenet_v3_small", "squeezenet1_1", "vgg11"]
WITHOUT_LAYER = [
    "lenet",
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "resnet18",
    "shufflenet_v2_x0_5",
    "swin_t",
    "vit_b_32",
]


@pytest.mark.parametrize("arch", WITH_LAYER + WITHOUT_LAYER)
def test_dropout_acts_once_just_before_the_head_and_keeps_the_state_dict(arch: str) -> None:
    """A layer that the network has there is set; elsewhere a hook drops the inputs of the head."""
    size = 96 if arch == "inception_v3" else 64
    with torch.device("meta"):
        network, plain = build_network(arch, 7, size, dropout=0.25), build_network(arch, 7, size)
    _, layer = head(network)
    probabilities = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    usual = [module.p for module in plain.modules() if isinstance(module, nn.Dropout)]
    assert list(network.state_dict()) == list(plain.state_dict())
    if arch in WITH_LAYER:
        assert probabilities == [*usual[:-1], 0.25]
        assert not layer._forward_pre_hooks
    else:
        assert probabilities == usual
        assert len(layer._forward_pre_hooks) == 1


@pytest.mark.parametrize("arch", ["bn-cnn", "lenet", "resnet18", "squeezenet1_1", "googlenet", "small-cnn"])
def test_dropout_drops_a_share_of_what_the_head_sees_and_only_in_training(arch: str) -> None:
    torch.manual_seed(0)
    network = build_network(arch, 7, 32, dropout=0.75)
    inputs: list[torch.Tensor] = []
    # After the hook of the dropout, before the head.
    head(network)[1].register_forward_pre_hook(lambda _module, given: inputs.append(given[0].detach()))
    images = torch.rand(4, 3, 32, 32)

    network.train()(images)
    network.eval()(images)
    first, second = network(images), network(images)

    assert torch.equal(first, second)
    dropped, kept = ((values == 0).float().mean().item() for values in inputs[:2])
    # A ReLU's zeros stay zeros: of the rest three quarters are dropped.
    assert dropped == pytest.approx(kept + 0.75 * (1 - kept), abs=0.12)


def test_dropout_0_turns_a_networks_own_off() -> None:
    network = build_network("bn-cnn", 7, 32, dropout=0.0)
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.0]


# Last layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("small-cnn", ["Linear", "Flatten"]),
        ("bn-cnn", ["Dropout", "Linear", "Flatten"]),
        ("resnet18", ["Linear", "Flatten"]),
        ("googlenet", ["Dropout", "Flatten", "Linear", "Flatten"]),  # side by side, not in a Sequential
        ("vgg11", ["Dropout", "Linear", "Flatten"]),
        ("squeezenet1_1", ["Dropout", "Conv2d", "ReLU", "AdaptiveAvgPool2d", "Flatten"]),
        ("vit_b_32", ["Linear", "Flatten"]),
    ],
)
def test_the_last_layers_are_the_networks_own_from_the_dropout_before_the_head_on(
    arch: str, expected: list[str]
) -> None:
    with torch.device("meta"):
        network = build_network(arch, 7, 32)
    last = last_layers(network)
    assert [type(layer).__name__ for layer in last] == expected
    own = {id(layer) for layer in network.modules()}
    assert all(id(layer) in own for layer in last if not isinstance(layer, nn.Flatten))
    assert head(network)[1] in list(last)


@pytest.mark.parametrize(
    "arch", ["small-cnn", "bn-cnn", "simple-cnn", "lenet", "resnet9-half", "mobilenet_v3_small", "squeezenet1_1"]
)
def test_the_last_layers_give_the_logits_from_what_they_see(arch: str) -> None:
    """Of torchvision's networks, test_torchvision.py looks at one of each family."""
    torch.manual_seed(0)
    network = build_network(arch, 7, 64, dropout=0.5).eval()
    seen: list[torch.Tensor] = []
    hook = last_layers(network)[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        logits = network(torch.rand(2, 3, 64, 64))
        hook.remove()
        assert torch.equal(last_layers(network)(seen[0]), logits)
        assert not torch.equal(last_layers(network).train()(seen[0]), logits), "the dropout is among them"


# Small questions -----------------------------------------------------------------------------------------------------


def test_parameters_are_counted_and_batch_norm_is_seen() -> None:
    lenet = build_network("lenet", 10, 32)
    # (75 + 1) * 6 + (150 + 1) * 16 + (400 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10
    assert count_parameters(lenet) == 62_006
    assert not has_batch_norm(lenet)
    assert has_batch_norm(build_network("bn-cnn", 10, 32))
