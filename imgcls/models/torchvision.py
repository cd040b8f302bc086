"""The 80 classification networks of torchvision: how they are built, and all that is known of them.

Importing torchvision takes half as long again as torch itself, for its operators import torch's compiler: it waits
until a network is built or its weights are asked for.
"""

from __future__ import annotations

import math
import re
from typing import Any

from torch import nn

from imgcls.models.families import Family, Recipe
from imgcls.models.surgery import head

# torchvision normalises these two once more inside the network when their published weights are used
# (`transform_input`); ImageNet's mean and deviation followed by that equal 0.5 and 0.5. They have auxiliary heads.
HALF = ("googlenet", "inception_v3")

# Heads that torchvision draws too widely for a few classes: uniformly within 1/sqrt(classes) (EfficientNet), within
# sqrt(3/classes) (MNASNet), and with a deviation of 0.1 (Inception). With ten classes the loss begins at 5 to 18, where
# ln 10 is 2.3. They are drawn by torch's own rule for linear layers, as in ResNets: uniformly within 1/sqrt(inputs).
WIDE_HEADS = ("efficientnet", "inception", "mnasnet")


def build(arch: str, num_classes: int, image_size: int) -> nn.Module:
    """Return a torchvision network: float [B, 3, S, S] to logits [B, num_classes].

    Raises:
        ValueError: the network cannot take this image size.
    """
    import torchvision

    options: dict[str, Any] = {}
    if arch in HALF:
        options = {"aux_logits": False, "init_weights": True, "transform_input": False}
    elif arch.startswith("vit_"):
        options = {"image_size": image_size}
    elif arch.startswith("maxvit_"):
        options = {"input_size": (image_size, image_size)}
    network: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **options)
    if arch.startswith(WIDE_HEADS):
        nn.init.kaiming_uniform_(head(network)[1].weight, a=math.sqrt(5))
    return network


def recipe(arch: str) -> Recipe:
    """Return the recipe of the default weights of a torchvision network."""
    import torchvision

    weights = torchvision.models.get_model_weights(arch).DEFAULT
    preset = weights.transforms()
    mean, std = ((0.5,) * 3, (0.5,) * 3) if arch in HALF else (tuple(preset.mean), tuple(preset.std))
    return Recipe(
        name=str(weights),
        url=weights.url,
        license=weights.meta.get("license"),
        size=preset.crop_size[0],
        resize=preset.resize_size[0],
        interpolation=preset.interpolation.value,
        mean=mean,
        std=std,
    )


FAMILY = Family(
    name="torchvision",
    build=build,
    # Found by trying (torchvision 0.29).
    smallest={
        "alexnet": 63,
        "convnext": 32,
        "densenet": 29,
        "googlenet": 15,
        "inception": 75,
        "squeezenet1_0": 21,
        "squeezenet1_1": 17,
        "vgg": 32,
    },
    multiple={"vit_b_16": 16, "vit_b_32": 32, "vit_l_16": 16, "vit_l_32": 32, "vit_h_14": 14, "maxvit_t": 224},
    small_stem=("resnet", "resnext", "wide_resnet"),
    fine_tuned_gently=("vit_", "swin_", "maxvit_", "convnext_"),
    off_meta=("regnet",),
    recipe=recipe,
    # Building all 80 networks takes seven seconds.
    first_names={
        "alexnet": ".features.0.weight",
        "convnext": ".features.0.0.weight",
        "densenet": ".features.conv0.weight",
        "efficientnet": ".features.0.0.weight",
        "googlenet": ".conv1.conv.weight",
        "inception": ".Conv2d_1a_3x3.conv.weight",
        "maxvit": ".stem.0.0.weight",
        "mnasnet": ".layers.0.weight",
        "mobilenet": ".features.0.0.weight",
        "resnet": ".conv1.weight",
        "resnext": ".conv1.weight",
        "shufflenet": ".conv1.0.weight",
        "squeezenet": ".features.0.weight",
        "swin": ".features.0.0.weight",
        "vgg": ".features.0.weight",
        "vit": ".class_token",
        "wide_resnet": ".conv1.weight",
    },
    # Published files of densenet and of vision transformers are older than the networks.
    renames=(
        (re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)"), r"\1\2"),
        (re.compile(r"(\.mlp\.)linear_1\."), r"\g<1>0."),
        (re.compile(r"(\.mlp\.)linear_2\."), r"\g<1>3."),
    ),
    auxiliary=("aux1.", "aux2.", "AuxLogits."),
    positions="encoder.pos_embedding",
)
