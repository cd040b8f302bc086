"""What users of other tools type: every answer is a name that exists, and names of our own are never explained away."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from imgcls import habits, settings
from imgcls.cli.app import app
from imgcls.config import TrainConfig
from imgcls.registry import ARCHITECTURES, DATASETS, EXPORTERS

GROUP: Any = typer.main.get_command(app)
OPTIONS = {
    name: [flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)]
    for name, command in GROUP.commands.items()
}


def test_each_command_that_is_meant_exists() -> None:
    assert set(habits.COMMANDS.values()) <= set(OPTIONS)
    assert not set(habits.COMMANDS) & set(OPTIONS)


def test_each_option_that_is_meant_exists() -> None:
    known = {flag for flags in OPTIONS.values() for flag in flags}
    for wanted in habits.OPTIONS.values():
        assert all(word.split()[0] in known or habits.is_sentence(word) for word in wanted)


def test_each_value_that_is_meant_exists() -> None:
    known = {settings.flag(item): settings.choices(hint) for item, hint in settings.settings(TrainConfig)}
    known |= {"--device": ("cuda", "mps"), "--data": tuple(DATASETS), "--split": ("train", "val", "test")}
    known["--format"] = (*EXPORTERS, "text", "json", "jsonl", "csv")
    for flag, values in habits.VALUES.items():
        assert set(values.values()) <= set(known[flag]), flag
        assert not set(values) & set(known[flag]), f"{flag}: one of our own words"


def test_each_architecture_that_is_meant_exists() -> None:
    assert set(habits.ARCHITECTURES) <= set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        # timm
        ("vit_base_patch16_224", "vit_b_16"),
        ("vit_large_patch32_384.orig_in21k", "vit_l_32"),
        ("tf_efficientnet_b0", "efficientnet_b0"),
        ("tf_efficientnetv2_s.in21k", "efficientnet_v2_s"),
        ("mobilenetv3_small_100", "mobilenet_v3_small"),
        ("mobilenetv2_100", "mobilenet_v2"),
        ("resnet50d", "resnet50"),
        ("resnet50.a1_in1k", "resnet50"),
        ("seresnext50_32x4d", "resnext50_32x4d"),
        ("swin_tiny_patch4_window7_224", "swin_t"),
        ("swinv2_base_window8_256", "swin_v2_b"),
        ("convnext_tiny.fb_in22k", "convnext_tiny"),
        ("regnety_040", "regnet_y_3_2gf"),
        ("vgg16_bn.tv_in1k", "vgg16_bn"),
        ("wide_resnet50", "wide_resnet50_2"),
        # Hugging Face, Keras, CLIP, Ultralytics, torchvision
        ("google/vit-base-patch16-224", "vit_b_16"),
        ("microsoft/resnet-50", "resnet50"),
        ("facebook/convnext-tiny-224", "convnext_tiny"),
        ("google/mobilenet_v2_1.0_224", "mobilenet_v2"),
        ("EfficientNetB0", "efficientnet_b0"),
        ("MobileNetV3Small", "mobilenet_v3_small"),
        ("ResNet152V2", "resnet152"),
        ("ViT-B/32", "vit_b_32"),
        ("yolo11n-cls", "resnet18"),
        ("ResNet18_Weights.IMAGENET1K_V1", "resnet18"),
        # Slips
        ("resnet-18", "resnet18"),
        ("ResNet18", "resnet18"),
        ("squeezenet1.1", "squeezenet1_1"),
        ("resnet81", "resnet18"),
        ("densenet12", "densenet121"),
    ],
)
def test_architectures_by_the_names_of_others(typed: str, meant: str) -> None:
    assert habits.value("--arch", typed, ARCHITECTURES) == f" (did you mean '{meant}'?)"


def test_a_name_like_nothing_gets_no_answer() -> None:
    assert habits.value("--arch", "xyzzy", ARCHITECTURES) == ""
    assert habits.value("--device", "toaster", ("auto", "cpu", "cuda", "mps")) == ""
    assert habits.option("--xyzzy", OPTIONS["train"]) is None


@pytest.mark.parametrize(
    ("typed", "meant"), [("0", "cuda:0"), ("cuda0", "cuda:0"), ("gpu", "cuda"), ("GPU:1", "cuda:1"), ("metal", "mps")]
)
def test_devices_by_the_names_of_others(typed: str, meant: str) -> None:
    assert habits.value("--device", typed, ("auto", "cpu", "cuda", "mps")) == f" (did you mean '{meant}'?)"


@pytest.mark.parametrize(
    ("command", "typed", "meant"),
    [
        ("train", "--batch", "--batch-size"),
        ("train", "--batch_size", None),  # near enough for a comparison of letters
        ("train", "--model", "--arch"),
        ("predict", "--model", "--ckpt"),
        ("info", "--model", "ckpt"),
        ("evaluate", "--weights", "--ckpt"),
        ("train", "--gpu", "--device cuda"),
        ("predict", "--source", "images"),
        ("evaluate", "--source", "--data"),
        ("train", "--output-dir", "--out"),
        ("export", "-o", "--output"),
        ("sample-data", "--out", "folder"),
        ("train", "--n_epochs", "--epochs"),
    ],
)
def test_one_table_serves_every_command(command: str, typed: str, meant: str | None) -> None:
    assert habits.option(typed, OPTIONS[command]) == meant
