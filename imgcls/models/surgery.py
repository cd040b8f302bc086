"""Finding and changing layers of any network: head, last layers, stem, dropout, BatchNorm.

Knows no names of networks.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# The share of each batch in BatchNorm's running statistics: torch's default and that of most networks, of which 35 % of
# what was before is left after 10 steps and 0.5 % after 50. Where torchvision has 0.01 (mobilenet_v3, efficientnet_b5
# to b7, maxvit_t) or 0.0003 (mnasnet), 61 % and 98.5 % are left after 50 steps. Fine-tuning gains and loses by it (one
# seed each, 0.1 against torchvision's own): at batch 64 over 48 steps mobilenet_v3_small validates at 43.6 against
# 40.8 %, mnasnet0_5 at 34.4 against 33.6; at batch 8 over 94 steps at 33.6 against 36.0, and 25.4 against 27.6.
MOMENTUM = 0.1


def head(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Return the name and module of the layer that gives the logits: the last linear layer or convolution."""
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    return layers[-1]


def last_layers(network: nn.Module) -> nn.Sequential:
    """Return the layers from the head on, with a dropout just before it: what learns while the backbone is frozen.

    They are the network's own modules; their inputs are its features, their outputs its logits [B, classes].
    """
    name, layer = head(network)
    parent_name, _, last = name.rpartition(".")
    parent = network.get_submodule(parent_name)
    if not isinstance(parent, nn.Sequential):
        dropout = parent._modules.get("dropout")
        # Inception's dropout comes before its flattening; elsewhere there is nothing left to flatten.
        return nn.Sequential(*([dropout, nn.Flatten()] if isinstance(dropout, nn.Dropout) else []), layer, nn.Flatten())
    children = list(parent.children())
    first = list(parent._modules).index(last)
    first -= first > 0 and isinstance(children[first - 1], nn.Dropout)
    return nn.Sequential(*children[first:], nn.Flatten())


def shrink_stem(network: Any) -> None:
    """Let a ResNet begin with a 3x3 convolution without stride and pooling, for small images."""
    first = network.conv1
    network.conv1 = nn.Conv2d(3, first.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


def set_dropout(network: nn.Module, probability: float) -> None:
    """Set the dropout just before the head where there is one, else drop the head's inputs by a hook.

    A hook adds no module, so the state dict keeps the network's own keys.
    """
    before = last_layers(network)[0]
    if isinstance(before, nn.Dropout):
        before.p = probability
    else:
        head(network)[1].register_forward_pre_hook(partial(_drop_inputs, probability))


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def has_batch_norm(network: nn.Module) -> bool:
    """Tell whether any layer is a BatchNorm."""
    return bool(batch_norms(network))


def batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the BatchNorm layers."""
    return [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


def _drop_inputs(probability: float, layer: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return F.dropout(inputs[0], probability, layer.training)
