"""The 80 classification networks of torchvision: building them, and the recipe that goes with their weights.

Knows nothing of where weight files are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torchvision
from torch import nn

from imgcls.schema import Interpolation

# torchvision normalises these two once more inside the network when their published weights are used
# (`transform_input`); ImageNet's mean and deviation followed by that equal 0.5 and 0.5.
HALF = ("googlenet", "inception_v3")
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # heads of those two that serve training only; we build without


@dataclass(frozen=True)
class Recipe:
    """How a network's published weights were made to see images, and where they are."""

    name: str  # e.g. ResNet18_Weights.IMAGENET1K_V1
    url: str
    license: str | None  # None: torchvision's own
    size: int
    resize: int
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def recipe(arch: str) -> Recipe:
    """Return the recipe of the default weights of a torchvision network."""
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


def build(arch: str, num_classes: int, image_size: int) -> nn.Module:
    """Return a torchvision network: float [B, 3, S, S] to logits [B, num_classes].

    Raises:
        ValueError: the network cannot take this image size.
    """
    options: dict[str, Any] = {}
    if arch in HALF:
        options = {"aux_logits": False, "init_weights": True, "transform_input": False}
    elif arch.startswith("vit_"):
        options = {"image_size": image_size}
    elif arch.startswith("maxvit_"):
        options = {"input_size": (image_size, image_size)}
    network: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **options)
    return network
