"""Each name has one family, and what a family says of its networks is so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from imgcls import registry
from imgcls.errors import UsageError
from imgcls.models.classifier import build_network
from imgcls.models.families import (
    Family,
    family,
    first_name,
    has_small_stem,
    is_fine_tuned_gently,
    published,
    size_problem,
    small_stems,
)
from imgcls.registry import ARCHITECTURES


def test_every_name_has_a_family_and_every_table_of_a_family_a_network() -> None:
    """A beginning that no name has is a slip: nobody would notice what it was to say."""
    for known in {id(family(arch)): family(arch) for arch in ARCHITECTURES}.values():
        assert isinstance(known, Family)
        names = [arch for arch in ARCHITECTURES if family(arch) is known]
        beginnings = {*known.smallest, *known.multiple, *known.first_names}
        beginnings |= {*known.small_stem, *known.fine_tuned_gently, *known.off_meta}
        assert not {beginning for beginning in beginnings if not any(name.startswith(beginning) for name in names)}


def test_a_family_that_says_nothing_has_nothing_special(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new one would be added: a module with a network, and its name in the table."""
    monkeypatch.setitem(registry.ARCHITECTURES, "vit_plain", f"{__name__}:PLAIN")
    assert build_network("vit_plain", 7, 8)(torch.rand(2, 3, 8, 8)).shape == (2, 7)
    assert size_problem("vit_plain", 7) == "--size 7: vit_plain needs at least 8"
    assert (published("vit_plain"), first_name("vit_plain")) == (None, "")
    assert not has_small_stem("vit_plain")
    assert not is_fine_tuned_gently("vit_plain")


def plain(arch: str, num_classes: int, image_size: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))


PLAIN = Family(name="plain", build=plain)


def test_small_stems_are_those_of_residual_networks() -> None:
    assert small_stems() == ["resnet", "resnext", "wide_resnet"]
    assert {arch for arch in ARCHITECTURES if has_small_stem(arch)} == {
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"),
        *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    }


def test_transformers_and_convnext_are_fine_tuned_gently() -> None:
    gentle = {arch.partition("_")[0] for arch in ARCHITECTURES if is_fine_tuned_gently(arch)}
    assert gentle == {"vit", "swin", "maxvit", "convnext"}
    assert len([arch for arch in ARCHITECTURES if is_fine_tuned_gently(arch)]) == 16


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
            network = family(arch).build(arch, 7, size)
            for mode in (True, False):
                assert network.train(mode)(torch.rand(2, 3, size, size)).shape == (2, 7)
        except (RuntimeError, UserWarning):  # "output size is too small"; "zero-element tensors"
            return False
        return True

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
