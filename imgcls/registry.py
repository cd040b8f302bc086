"""The names a user can type and what is behind them, as literal tables `name -> "module:name"`.

Imports nothing until `resolve` is called, so that `--help` and a typo cost no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

# The names of `--arch`, and the module that knows their family.
ARCHITECTURES: dict[str, str] = dict.fromkeys(
    ("small-cnn", "bn-cnn", "simple-cnn", "lenet", "resnet9", "resnet9-half"), "imgcls.models.own:FAMILY"
) | dict.fromkeys(
    (
        *("alexnet", "convnext_tiny", "convnext_small", "convnext_base", "convnext_large"),
        *("densenet121", "densenet161", "densenet169", "densenet201"),
        *("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3"),
        *("efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7"),
        *("efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"),
        *("googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"),
        *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
        *("regnet_x_400mf", "regnet_x_800mf", "regnet_x_1_6gf", "regnet_x_3_2gf"),
        *("regnet_x_8gf", "regnet_x_16gf", "regnet_x_32gf"),
        *("regnet_y_400mf", "regnet_y_800mf", "regnet_y_1_6gf", "regnet_y_3_2gf"),
        *("regnet_y_8gf", "regnet_y_16gf", "regnet_y_32gf", "regnet_y_128gf"),
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
        *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
        *("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0"),
        *("squeezenet1_0", "squeezenet1_1", "swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b"),
        *("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
        *("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"),
    ),
    "imgcls.models.torchvision:FAMILY",
)

DATASETS: dict[str, str] = {
    "cifar10": "imgcls.data.torchvision_sets:cifar10",
    "cifar100": "imgcls.data.torchvision_sets:cifar100",
    "mnist": "imgcls.data.torchvision_sets:mnist",
    "fashion-mnist": "imgcls.data.torchvision_sets:fashion_mnist",
    "svhn": "imgcls.data.torchvision_sets:svhn",
    "stl10": "imgcls.data.torchvision_sets:stl10",
    "food101": "imgcls.data.torchvision_sets:food101",
    "oxford-pets": "imgcls.data.torchvision_sets:oxford_pets",
    "flowers102": "imgcls.data.torchvision_sets:flowers102",
}

# What loads a checkpoint for prediction, by the file's extension; "" stands for any other.
BACKENDS: dict[str, str] = {"": "imgcls.inference.torch:load", ".onnx": "imgcls.inference.onnx:load"}

# What `export --format` takes, and the module with its `write` and `read`. The name is the file's extension too.
EXPORTERS: dict[str, str] = {
    "onnx": "imgcls.exporters.onnx",
    "torchscript": "imgcls.exporters.torchscript",
    "pt2": "imgcls.exporters.pt2",
    "safetensors": "imgcls.exporters.safetensors",
}


def resolve(entry: str) -> Any:
    """Import and return what a table's `"module:name"` names."""
    module, name = entry.split(":")
    return getattr(importlib.import_module(module), name)
