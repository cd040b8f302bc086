"""All 80 networks get the head the data asks for; one of each family learns, is saved and comes back the same."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from families import FAMILIES
from torch import nn
from torch.nn import functional as F
from torchvision.models.regnet import BlockParams

from imgcls import checkpoint
from imgcls.models.classifier import Classifier, build_model, build_network
from imgcls.models.families import family, first_name, published
from imgcls.models.surgery import batch_norms, head, last_layers
from imgcls.models.torchvision import FAMILY, recipe
from imgcls.registry import ARCHITECTURES
from imgcls.schema import IMAGENET_MEAN, IMAGENET_STD, ModelCard, Preprocess, Pretrained

PUBLISHED = sorted(name for name in ARCHITECTURES if family(name) is FAMILY)


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let RegNet be built without memory too: its block widths are read from small tensors, which need a device."""
    compute = BlockParams.from_init_params

    def on_cpu(**options: Any) -> BlockParams:
        with torch.device("cpu"):
            return compute(**options)

    monkeypatch.setattr(BlockParams, "from_init_params", on_cpu)


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("arch", PUBLISHED)
def test_the_head_and_nothing_else_follows_the_number_of_classes(arch: str) -> None:
    size = 224 if arch == "vit_h_14" else recipe(arch).size
    with torch.device("meta"):
        seven, five = build_network(arch, 7, size), build_network(arch, 5, size)
        logits = seven.eval()(torch.zeros(2, 3, size, size))
    name, layer = head(seven)
    assert logits.shape == (2, 7)
    assert layer.weight.shape[0] == 7
    shapes, others = ({key: value.shape for key, value in net.state_dict().items()} for net in (seven, five))
    differing = {key for key in shapes if shapes[key] != others[key]}
    assert differing == {f"{name}.{part}" for part, _ in layer.named_parameters()}  # maxvit's has no bias
    assert shapes.keys() == others.keys()
    # All as those that are really trained in tests/engine/test_loop.py: at 0.01 or less, short runs do not validate.
    assert {layer.momentum for layer in batch_norms(seven)} <= {0.1}


@pytest.mark.parametrize(
    "arch",
    [
        *("resnet18", "densenet121", "googlenet", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf"),
        *("shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "efficientnet_b0", "mnasnet0_5", "inception_v3"),
    ],
)
def test_fresh_weights_are_those_of_torchvisions_own_draws_but_for_wide_heads(arch: str) -> None:
    torch.manual_seed(0)
    ours = build_network(arch, 7, 96)
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": True} if arch in ("googlenet", "inception_v3") else {}
    theirs = torchvision.models.get_model(arch, weights=None, num_classes=7, **options).state_dict()
    differing = {key for key, value in ours.state_dict().items() if not torch.equal(value, theirs[key])}
    wide = arch.startswith(("efficientnet", "mnasnet", "inception"))
    assert differing == ({f"{head(ours)[0]}.weight"} if wide else set())


@pytest.mark.parametrize("beginning", FAMILY.first_names)
def test_the_first_names_by_which_files_are_known(beginning: str) -> None:
    arch = next(arch for arch in PUBLISHED if arch.startswith(beginning))
    with torch.device("meta"):
        network = build_network(arch, 2, 224)
    assert first_name(arch) == f".{next(iter(network.state_dict()))}"


def test_every_network_but_regnet_is_known_by_a_first_name() -> None:
    """The others would be built to see whose weights a file has."""
    assert {arch for arch in PUBLISHED if not first_name(arch)} == {arch for arch in PUBLISHED if "regnet" in arch}


def card(arch: str, size: int, **options: Any) -> ModelCard:
    return ModelCard(
        arch=arch,
        arch_options=options,
        classes=tuple("abcdefg"),
        preprocess=Preprocess(size=size, resize=size),
        pretrained=Pretrained(asked="no", used=None, reason="--no-pretrained"),
    )


@pytest.mark.parametrize(("arch", "size"), FAMILIES.items())
def test_one_of_each_family_learns_a_batch_and_comes_back_from_a_file_with_equal_logits(
    arch: str, size: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    described = card(arch, size)
    model = build_model(described)
    images = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8)
    before = {key: value.clone() for key, value in model.network.state_dict().items() if "weight" in key}

    loss = F.cross_entropy(model.train()(images), torch.tensor([0, 2, 4, 6]))
    assert abs(loss.item() - math.log(7)) < 1
    loss.backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(model.parameters(), lr=0.001).step()

    after = model.network.state_dict()
    assert any(not torch.equal(after[key], value) for key, value in before.items())
    path = tmp_path / "best.pt"
    checkpoint.save(path, checkpoint.Checkpoint(described, after, np.array([], dtype=np.int64)))
    loaded = checkpoint.load(path)
    again = build_model(loaded.card, loaded.model).eval()
    with torch.inference_mode():
        seen: list[torch.Tensor] = []
        last = last_layers(model.network)
        hook = last[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        logits = model.eval()(images)
        hook.remove()
        assert torch.isfinite(logits).all()
        torch.testing.assert_close(last(seen[0]), logits)  # what learns while the rest is frozen
        assert torch.equal(again(images), logits)
    path.unlink()  # up to half a gigabyte, and pytest keeps the folders of three runs


@pytest.mark.parametrize(
    ("arch", "name", "size", "resize", "interpolation"),
    [
        ("resnet18", "ResNet18_Weights.IMAGENET1K_V1", 224, 256, "bilinear"),
        ("resnet50", "ResNet50_Weights.IMAGENET1K_V2", 224, 232, "bilinear"),
        ("efficientnet_b0", "EfficientNet_B0_Weights.IMAGENET1K_V1", 224, 256, "bicubic"),
        ("efficientnet_b7", "EfficientNet_B7_Weights.IMAGENET1K_V1", 600, 600, "bicubic"),
        ("swin_v2_t", "Swin_V2_T_Weights.IMAGENET1K_V1", 256, 260, "bicubic"),
        ("inception_v3", "Inception_V3_Weights.IMAGENET1K_V1", 299, 342, "bilinear"),
        ("vit_h_14", "ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1", 518, 518, "bicubic"),
    ],
)
def test_a_recipe_is_that_of_the_default_weights(
    arch: str, name: str, size: int, resize: int, interpolation: str
) -> None:
    found = recipe(arch)
    assert found == published(arch)
    assert (found.name, found.size, found.resize, found.interpolation) == (name, size, resize, interpolation)


def test_recipes_carry_mean_and_deviation() -> None:
    assert (recipe("resnet18").mean, recipe("resnet18").std) == (IMAGENET_MEAN, IMAGENET_STD)
    half = (0.5, 0.5, 0.5)
    for arch in ("efficientnet_v2_l", "googlenet", "inception_v3"):
        assert (recipe(arch).mean, recipe(arch).std) == (half, half)


def test_only_two_defaults_have_a_licence_of_their_own() -> None:
    licensed = {arch for arch in PUBLISHED if recipe(arch).license}
    assert licensed == {"vit_h_14", "regnet_y_128gf"}


@pytest.mark.parametrize("arch", PUBLISHED)
def test_a_recipe_can_become_a_preprocess_and_its_file_name_carries_a_hash(arch: str) -> None:
    """Without a hash in the name a download would be believed as it comes."""
    found = recipe(arch)
    Preprocess(size=found.size, resize=found.resize, interpolation=found.interpolation, mean=found.mean, std=found.std)
    assert re.search(r"-[0-9a-f]{8,}\.pth$", found.url)


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_half_and_half_equals_torchvisions_own_second_normalisation(arch: str) -> None:
    """Published weights of these two expect ImageNet's normalisation followed by `transform_input`."""
    torch.manual_seed(0)
    theirs: nn.Module = torchvision.models.get_model(
        arch, weights=None, aux_logits=False, init_weights=False, transform_input=True
    ).eval()
    size, found = 96, recipe(arch)
    ours = Classifier(
        build_network(arch, 1000, size), Preprocess(size=size, resize=size, mean=found.mean, std=found.std)
    )
    ours.network.load_state_dict(theirs.state_dict())
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    imagenet = torchvision.transforms.functional.normalize(images / 255, IMAGENET_MEAN, IMAGENET_STD)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images), theirs(imagenet), atol=1e-5, rtol=1e-4)
