"""A classifier takes uint8 images in any order of memory, begins near ln K, and comes back from its card."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from imgcls import registry
from imgcls.errors import CheckpointError
from imgcls.models.classifier import Classifier, Normalize, build_model, build_network
from imgcls.models.families import Family
from imgcls.models.surgery import head
from imgcls.registry import ARCHITECTURES
from imgcls.schema import IMAGENET_MEAN, IMAGENET_STD, ModelCard, Preprocess, Pretrained

# Normalize -----------------------------------------------------------------------------------------------------------


def test_normalize_equals_torchvision() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    theirs = torchvision.transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)(levels / 255)
    ours = Normalize(IMAGENET_MEAN, IMAGENET_STD)(levels)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_normalize_takes_float_of_0_to_255_as_mixup_makes_it() -> None:
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
    assert torch.equal(normalize(images.float()), normalize(images))
    assert torch.equal(normalize(images.half()), normalize(images))  # 0..255 is exact in float16


@pytest.mark.parametrize(
    ("images", "advice"),
    [
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "add a batch axis"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), "channels first"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"\[B, 3, H, W\]"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "must be uint8"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.bool), "must be uint8"),
    ],
)
def test_normalize_refuses_another_layout_or_type_in_one_line(images: torch.Tensor, advice: str) -> None:
    with pytest.raises(ValueError, match=advice) as caught:
        Normalize(IMAGENET_MEAN, IMAGENET_STD)(images)
    assert "\n" not in str(caught.value)


def test_normalize_is_part_of_the_model_and_not_of_its_state() -> None:
    model = Classifier(build_network("lenet", 7, 32), Preprocess(size=32, resize=32))
    assert not Normalize(IMAGENET_MEAN, IMAGENET_STD).state_dict()
    assert model(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 7)
    assert not [key for key in model.state_dict() if not key.startswith("network.")]


# Fresh weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_no_head_begins_wider_than_its_inputs(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a deviation of at most 1/sqrt(inputs) it makes logits no larger than features: the loss begins near ln K.

    Two classes are the hardest case of rules that divide by the classes. Nothing but the head is drawn, for time.
    """

    def only_the_head(draw: Any) -> Any:
        return lambda tensor, *args, **options: draw(tensor, *args, **options) if len(tensor) == 2 else tensor

    for name in ("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"):
        monkeypatch.setattr(nn.init, name, only_the_head(getattr(nn.init, name)))
    weights = head(build_network(arch, 2, 224))[1].weight.detach()
    assert weights.std().item() * weights[0].numel() ** 0.5 < 1


def copied(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# Channels last -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "size"), [("small-cnn", 16), ("bn-cnn", 16), ("resnet9-half", 16), ("resnet18", 32), ("swin_t", 32)]
)
def test_channels_last_gives_the_same_answers_from_images_in_either_order(arch: str, size: int) -> None:
    torch.manual_seed(0)
    model = Classifier(build_network(arch, 7, size), Preprocess(size=size, resize=size)).eval()
    before = copied(model.network)
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    turned = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        plain = model(images)
        assert torch.equal(model(turned), plain)
        assert model.in_channels_last() is model
        torch.testing.assert_close(model(images), plain, atol=1e-5, rtol=0)
        assert torch.equal(model(turned), model(images))
    assert same(copied(model.network), before)
    kernels = [layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


@pytest.mark.parametrize("last", [False, True])
def test_the_network_gets_images_in_the_order_of_its_weights(last: bool) -> None:
    model = Classifier(build_network("small-cnn", 7, 16), Preprocess(size=16, resize=16))
    model = model.in_channels_last() if last else model
    found: list[bool] = []
    model.network.register_forward_pre_hook(
        lambda _, inputs: found.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    model(images)
    model(images.contiguous(memory_format=torch.channels_last))
    assert found == [last, last]


def test_what_is_no_batch_is_still_refused_in_one_line() -> None:
    model = Classifier(build_network("small-cnn", 7, 16), Preprocess(size=16, resize=16)).in_channels_last()
    with pytest.raises(ValueError, match="add a batch axis"):
        model(torch.zeros(3, 16, 16, dtype=torch.uint8))


# From a card ----------------------------------------------------------------------------------------------------------


CARD = ModelCard(
    arch="lenet",
    arch_options={},
    classes=("ant", "bee"),
    preprocess=Preprocess(size=32, resize=32),
    pretrained=Pretrained(asked="no", used=None, reason="--no-pretrained"),
)


def test_a_card_and_its_state_give_the_model_again() -> None:
    for card in (CARD, dataclasses.replace(CARD, arch="resnet18", arch_options={"stem": "small", "dropout": 0.5})):
        model = build_model(card).eval()
        again = build_model(card, model.network.state_dict()).eval()
        images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
        assert torch.equal(model(images), again(images))


@pytest.mark.parametrize(
    "changes",
    [
        {"arch": "lenet5"},
        {"arch_options": {"depth": 3}},
        {"arch_options": {"stem": "small"}},
        {"arch_options": {"stem": "huge"}},
        {"arch_options": {"dropout": "much"}},
        {"preprocess": Preprocess(size=8, resize=8)},
    ],
)
def test_a_card_of_no_network_is_an_error_of_the_checkpoint(changes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="describes no network of this version") as caught:
        build_model(dataclasses.replace(CARD, **changes))
    assert "\n" not in str(caught.value)


def test_weights_that_a_state_replaces_are_not_drawn() -> None:
    """Drawing those of vit_l_16 takes two seconds, and moves torch's generator."""
    card = dataclasses.replace(CARD, arch="resnet18")
    state = build_model(card).network.state_dict()
    before = torch.get_rng_state()
    model = build_model(card, state)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(copied(model.network), state)
    assert all(parameter.requires_grad and parameter.is_contiguous() for parameter in model.parameters())


def test_what_a_network_keeps_out_of_its_state_is_made_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ARCHITECTURES, "tabled", f"{__name__}:TABLED")
    card = dataclasses.replace(CARD, arch="tabled")
    assert torch.equal(build_model(card, {}).network(torch.zeros(1)), torch.tensor([1.0, 2.0]))


class Tabled(nn.Module):
    table: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.tensor([1.0, 2.0]), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.table


TABLED = Family(name="tabled", build=lambda arch, num_classes, image_size: Tabled())


def test_a_forged_input_size_takes_no_memory() -> None:
    """`bn-cnn` for 4096 px would be 34 thousand million weights, which the file does not hold."""
    card = dataclasses.replace(CARD, arch="bn-cnn", preprocess=Preprocess(size=4096, resize=4096))
    with pytest.raises(CheckpointError, match="the weights are of another network"):
        build_model(card, build_network("bn-cnn", 2, 32).state_dict())
