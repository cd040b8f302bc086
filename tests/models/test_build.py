"""A network takes uint8 images, has the stem and dropout asked for, and loads a state all or not at all."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from imgcls.errors import CheckpointError, Exit, UsageError
from imgcls.models import build
from imgcls.models.build import (
    Classifier,
    Normalize,
    build_model,
    build_network,
    count_parameters,
    has_batch_norm,
    has_small_stem,
    head,
    last_layers,
    load_state,
    size_problem,
)
from imgcls.registry import ARCHITECTURES, resolve
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


# Input sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "smallest"),
    [
        ("alexnet", 63),
        ("convnext_tiny", 32),
        ("densenet121", 29),
        ("googlenet", 15),
        ("inception_v3", 75),
        ("lenet", 16),
        ("squeezenet1_0", 21),
        ("squeezenet1_1", 17),
        ("vgg11_bn", 32),
    ],
)
def test_the_smallest_size_works_and_one_pixel_less_does_not(
    arch: str, smallest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = smallest - 1
    assert size_problem(arch, smallest) is None
    assert size_problem(arch, below) == f"--size {below}: {arch} needs at least {smallest}"
    with pytest.raises(UsageError, match="needs at least"):
        build_network(arch, 7, below)

    def runs(size: int) -> bool:
        """Build, train and predict without asking the table."""
        try:
            network = build_network(arch, 7, size)
            for mode in (True, False):
                assert network.train(mode)(torch.rand(2, 3, size, size)).shape == (2, 7)
        except (RuntimeError, UserWarning):  # "output size is too small"; "zero-element tensors"
            return False
        return True

    monkeypatch.setattr(build, "SMALLEST", {})
    monkeypatch.setattr(nn.init, "trunc_normal_", lambda tensor, *_args, **_options: tensor)  # seconds of no interest
    assert runs(smallest)
    assert not runs(below)


@pytest.mark.parametrize(
    "arch",
    [
        *(
            "small-cnn",
            "bn-cnn",
            "simple-cnn",
            "resnet9-half",
            "efficientnet_b0",
            "mnasnet0_5",
            "mobilenet_v2",
            "mobilenet_v3_small",
        ),
        *("regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "swin_t", "swin_v2_t"),
    ],
)
def test_the_others_take_any_size_from_8_px(arch: str) -> None:
    assert size_problem(arch, 7) == f"--size 7: {arch} needs at least 8"
    for size in (8, 9, 13):
        network = build_network(arch, 7, size)
        assert network(torch.rand(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize(("arch", "side"), [("vit_b_16", 16), ("vit_b_32", 32), ("vit_h_14", 14), ("maxvit_t", 224)])
def test_networks_that_cut_patches_need_a_multiple(arch: str, side: int) -> None:
    assert size_problem(arch, side + 1) == f"--size {side + 1}: {arch} needs a multiple of {side}"
    for size in (side, 2 * side):
        with torch.device("meta"):
            network = build_network(arch, 7, size).eval()
            assert network(torch.zeros(2, 3, size, size)).shape == (2, 7)


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


@pytest.mark.parametrize(
    "arch",
    [
        *("small-cnn", "bn-cnn", "simple-cnn", "lenet", "resnet9-half", "resnet18", "densenet121", "googlenet"),
        *("mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t"),
        *("efficientnet_b0", "mnasnet0_5", "inception_v3"),
    ],
)
def test_fresh_weights_are_those_of_the_networks_own_draws_but_for_wide_heads(arch: str) -> None:
    size = 96
    torch.manual_seed(0)
    ours = build_network(arch, 7, size)
    torch.manual_seed(0)
    entry = ARCHITECTURES[arch]
    plain = resolve(entry)(*([arch] if "torchvision" in entry else []), 7, size)
    theirs, name = copied(plain), head(ours)[0]
    differing = {key for key, value in copied(ours).items() if not torch.equal(value, theirs[key])}
    wide = arch.startswith(("efficientnet", "mnasnet", "inception"))
    assert differing == ({f"{name}.weight"} if wide else set())


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
    """Of torchvision's networks, test_torchvision_networks.py looks at one of each family."""
    torch.manual_seed(0)
    network = build_network(arch, 7, 64, dropout=0.5).eval()
    seen: list[torch.Tensor] = []
    hook = last_layers(network)[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        logits = network(torch.rand(2, 3, 64, 64))
        hook.remove()
        assert torch.equal(last_layers(network)(seen[0]), logits)
        assert not torch.equal(last_layers(network).train()(seen[0]), logits), "the dropout is among them"


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


# Loading -------------------------------------------------------------------------------------------------------------


def copied(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_state_is_loaded_whole() -> None:
    source, target = build_network("lenet", 7, 32), build_network("lenet", 7, 32)
    load_state(target, source.state_dict())
    assert same(copied(source), copied(target))


def test_a_state_that_does_not_fit_changes_nothing_and_names_the_first_differences() -> None:
    network = build_network("bn-cnn", 7, 32)
    before = copied(network)
    state = {key: torch.ones_like(value) for key, value in before.items()}
    del state["0.weight"]
    state["extra"] = torch.zeros(1)
    state["3.weight"] = torch.zeros(1, 2)
    state["25.weight"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as caught:
        load_state(network, state)
    assert str(caught.value) == (
        "the weights are of another network: 0.weight is missing; extra is not known; "
        "3.weight is [1, 2], not [64, 64, 3, 3] and 1 more"
    )
    assert caught.value.exit_code == Exit.CHECKPOINT
    assert same(before, copied(network))


def test_all_but_the_head_can_be_loaded() -> None:
    source, target = build_network("lenet", 1000, 32), build_network("lenet", 7, 32)
    fresh, name = copied(target), head(target)[0]
    load_state(target, source.state_dict(), but=name)
    given, now = copied(source), copied(target)
    for key, value in now.items():
        assert torch.equal(value, fresh[key] if key.startswith(f"{name}.") else given[key])


def test_the_head_may_be_absent_when_it_is_not_wanted() -> None:
    target = build_network("lenet", 7, 32)
    name = head(target)[0]
    state = {key: value for key, value in target.state_dict().items() if not key.startswith(f"{name}.")}
    load_state(target, state, but=name)
    with pytest.raises(CheckpointError, match=f"{name}.weight is missing"):
        load_state(target, state)


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


def test_a_forged_input_size_takes_no_memory() -> None:
    """`bn-cnn` for 4096 px would be 34 thousand million weights, which the file does not hold."""
    card = dataclasses.replace(CARD, arch="bn-cnn", preprocess=Preprocess(size=4096, resize=4096))
    with pytest.raises(CheckpointError, match="the weights are of another network"):
        build_model(card, build_network("bn-cnn", 2, 32).state_dict())


# Small questions -----------------------------------------------------------------------------------------------------


def test_parameters_are_counted_and_batch_norm_is_seen() -> None:
    lenet = build_network("lenet", 10, 32)
    # (75 + 1) * 6 + (150 + 1) * 16 + (400 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10
    assert count_parameters(lenet) == 62_006
    assert not has_batch_norm(lenet)
    assert has_batch_norm(build_network("bn-cnn", 10, 32))
