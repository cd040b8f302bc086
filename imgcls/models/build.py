"""From a name to a network that takes uint8 images: normalisation, stem, dropout, head, and loading its state.

Knows nothing of files and of training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from imgcls.errors import CheckpointError, UsageError
from imgcls.registry import ARCHITECTURES, resolve
from imgcls.schema import ModelCard, Preprocess

# Smallest input side by family, found by trying (torchvision 0.29); the others take any from 8 px.
SMALLEST = {"alexnet": 63, "convnext": 32, "densenet": 29, "googlenet": 15, "inception": 75, "lenet": 16}
SMALLEST |= {"squeezenet1_0": 21, "squeezenet1_1": 17, "vgg": 32}
MULTIPLE = {"vit_b_16": 16, "vit_b_32": 32, "vit_l_16": 16, "vit_l_32": 32, "vit_h_14": 14, "maxvit_t": 224}
STEMMED = ("resnet", "resnext", "wide_resnet")

# Heads that torchvision draws too widely for a few classes: uniformly within 1/sqrt(classes) (EfficientNet), within
# sqrt(3/classes) (MNASNet), and with a deviation of 0.1 (Inception). With ten classes the loss begins at 5 to 18, where
# ln 10 is 2.3. They are drawn by torch's own rule for linear layers, as in ResNets: uniformly within 1/sqrt(inputs).
WIDE_HEADS = ("efficientnet", "inception", "mnasnet")

# The share of each batch in BatchNorm's running statistics: torch's default and that of most networks, of which 35 % of
# what was before is left after 10 steps and 0.5 % after 50. Where torchvision has 0.01 (mobilenet_v3, efficientnet_b5
# to b7, maxvit_t) or 0.0003 (mnasnet), 61 % and 98.5 % are left after 50 steps. Fine-tuning gains and loses by it (one
# seed each, 0.1 against torchvision's own): at batch 64 over 48 steps mobilenet_v3_small validates at 43.6 against
# 40.8 %, mnasnet0_5 at 34.4 against 33.6; at batch 8 over 94 steps at 33.6 against 36.0, and 25.4 against 27.6.
MOMENTUM = 0.1

State = Mapping[str, torch.Tensor]


class Normalize(nn.Module):
    """Images uint8, or float in 0..255, [B, 3, H, W] to float32 with the given mean and standard deviation.

    The only normalisation in the tool, and part of every exported model. Its two constants come from the
    preprocessing specification and are not in the state dict.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        mean_, std_ = (torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1) for values in (mean, std))
        self.register_buffer("scale", 1 / (255 * std_), persistent=False)
        self.register_buffer("shift", -mean_ / std_, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise; ValueError in one line when the layout or the type is not as said above."""
        if images.dim() != 4 or images.shape[1] != self.scale.shape[1]:
            raise ValueError(f"images must be [B, 3, H, W], got {list(images.shape)}: add a batch axis, channels first")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images must be uint8, or float in 0..255, got {images.dtype}")
        return images.float() * self.scale + self.shift


class Classifier(nn.Module):
    """A network behind its normalisation. `network` has the state dict that is saved, with its own keys."""

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.normalize = Normalize(preprocess.mean, preprocess.std)
        self.network = network
        self.memory_format = torch.contiguous_format

    def in_channels_last(self) -> Classifier:
        """Keep weights and images with the channels last in memory: the same answers, sooner.

        resnet18 at 224 on two CPU cores: 1.2 x the training, 1.3 x the inference; small-cnn: 1.9 x the training.
        """
        self.memory_format = torch.channels_last
        return self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images uint8 or float 0..255 [B, 3, S, S] to logits [B, classes]."""
        if images.dim() == 4 and not images.is_contiguous(memory_format=self.memory_format):
            images = images.contiguous(memory_format=self.memory_format)
        logits: torch.Tensor = self.network(self.normalize(images))
        return logits


def build_network(
    arch: str, num_classes: int, image_size: int, *, stem: str = "standard", dropout: float | None = None
) -> nn.Module:
    """Build a network with fresh weights from the current torch generator.

    Args:
        arch: a name in `registry.ARCHITECTURES`.
        num_classes: outputs.
        image_size: side of the input, pixels.
        stem: "small" replaces the first layers of a ResNet for small images.
        dropout: before the head; None: as the architecture has it.

    Raises:
        UsageError: the network has no such stem, or cannot take this size.
    """
    if stem not in ("small", "standard") or not (dropout is None or 0 <= dropout <= 1):
        raise UsageError(f"no network is built with stem {stem} and dropout {dropout}; stem is small or standard")
    if problem := size_problem(arch, image_size):
        raise UsageError(problem)
    build = resolve(ARCHITECTURES[arch])
    network: nn.Module = (partial(build, arch) if _is_torchvision(arch) else build)(num_classes, image_size)
    if arch.startswith(WIDE_HEADS):
        nn.init.kaiming_uniform_(head(network)[1].weight, a=math.sqrt(5))
    for layer in batch_norms(network):
        layer.momentum = MOMENTUM
    if stem == "small":
        _shrink_stem(arch, network)
    if dropout is not None:
        _set_dropout(network, dropout)
    return network


def build_model(card: ModelCard, state: State | None = None) -> Classifier:
    """Build the model that a card describes, with `state` if given.

    Raises:
        CheckpointError: the state does not fit the card.
    """
    try:
        build = partial(build_network, card.arch, len(card.classes), card.preprocess.size, **card.arch_options)
        if state is not None and not card.arch.startswith("regnet"):  # the one family that the meta device refuses
            with torch.device("meta"):  # a forged size must not take the memory of a network its weights do not fill
                _check_fit(build().state_dict(), state)
        network = build()
    except (KeyError, TypeError, UsageError) as error:
        raise CheckpointError(f"the checkpoint describes no network of this version: {error}; update imgcls") from error
    if state is not None:
        load_state(network, state)
    return Classifier(network, card.preprocess)


def size_problem(arch: str, image_size: int) -> str | None:
    """Return why a network cannot take inputs of this side, or None."""
    multiple = MULTIPLE.get(arch, 1)
    if image_size % multiple:
        return f"--size {image_size}: {arch} needs a multiple of {multiple}"
    smallest = next((size for family, size in SMALLEST.items() if arch.startswith(family)), 8)
    if image_size < smallest:
        return f"--size {image_size}: {arch} needs at least {smallest}"
    return None


def has_small_stem(arch: str) -> bool:
    """Tell whether `--stem small` exists for this architecture."""
    return arch.startswith(STEMMED) and _is_torchvision(arch)


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


def load_state(network: nn.Module, state: State, *, but: str | None = None) -> None:
    """Load a state dict, all of it or nothing.

    Args:
        network: receives it.
        state: tensors by the network's own keys.
        but: name of a layer that keeps its fresh weights (the head).

    Raises:
        CheckpointError: naming the first keys or shapes that differ.
    """
    own = network.state_dict()
    given = _check_fit(own, state, but)
    own.update(given)  # `own` keeps the version metadata that mnasnet asks for
    network.load_state_dict(own)


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def has_batch_norm(network: nn.Module) -> bool:
    """Tell whether any layer is a BatchNorm."""
    return bool(batch_norms(network))


def batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the BatchNorm layers."""
    return [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


def _is_torchvision(arch: str) -> bool:
    return ARCHITECTURES[arch].endswith("torchvision_networks:build")


def _check_fit(own: State, state: State, but: str | None = None) -> dict[str, torch.Tensor]:
    """Return `state` without the layer `but`, or raise as `load_state` says."""
    expected = {key for key in own if but is None or not key.startswith(but + ".")}
    given = {key: value for key, value in state.items() if but is None or not key.startswith(but + ".")}
    differences = [f"{key} is missing" for key in own if key in expected and key not in given]
    differences += [f"{key} is not known" for key in given if key not in own]
    differences += [
        f"{key} is {list(given[key].shape)}, not {list(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise CheckpointError(f"the weights are of another network: {'; '.join(differences[:3])}{more}")
    return given


def _shrink_stem(arch: str, network: Any) -> None:
    if not has_small_stem(arch):
        raise UsageError(f"--stem small: {arch} has none; it exists for {', '.join(STEMMED)}")
    first = network.conv1
    network.conv1 = nn.Conv2d(3, first.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


def _set_dropout(network: nn.Module, probability: float) -> None:
    """Set the dropout just before the head where there is one, else drop the head's inputs by a hook.

    A hook adds no module, so the state dict keeps the network's own keys.
    """
    before = last_layers(network)[0]
    if isinstance(before, nn.Dropout):
        before.p = probability
    else:
        head(network)[1].register_forward_pre_hook(partial(_drop_inputs, probability))


def _drop_inputs(probability: float, layer: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return F.dropout(inputs[0], probability, layer.training)
