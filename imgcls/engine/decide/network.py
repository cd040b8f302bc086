"""Which network, from which weights, and how many images a batch must have for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from imgcls.checkpoint import Checkpoint
from imgcls.config import SMALL_IMAGE, TrainConfig
from imgcls.distributed import World
from imgcls.engine.decide.inputs import Inputs
from imgcls.errors import CheckpointError, DataError, UsageError
from imgcls.models import pretrained
from imgcls.models.classifier import Classifier, build_network
from imgcls.models.families import has_small_stem
from imgcls.models.state import load_state
from imgcls.models.surgery import has_batch_norm, last_layers
from imgcls.schema import Choice


def choose_stem(config: TrainConfig, inputs: Inputs, last: Checkpoint | None) -> Choice[str]:
    """Decide the first layers of a ResNet."""
    size, start = inputs.preprocess.size, inputs.start
    if last is not None:
        return Choice("stem", last.card.arch_options["stem"], "that of the run")
    if config.stem != "auto":
        return Choice("stem", config.stem, "as asked")
    if start.card is not None:
        return Choice("stem", start.card.arch_options["stem"], "that of --weights")
    if start.stem == "small":
        return Choice("stem", "small", "the first convolution of --weights is 3x3")
    if start.pretrained.used is not None:
        return Choice("stem", "standard", "that of the weights")
    if not has_small_stem(config.arch):
        return Choice("stem", "standard", "the architecture's own")
    small = size <= SMALL_IMAGE
    return Choice("stem", "small" if small else "standard", f"input {'up to' if small else 'above'} {SMALL_IMAGE} px")


def build_model(
    config: TrainConfig, inputs: Inputs, options: dict[str, Any], device: torch.device, last: Checkpoint | None
) -> tuple[Classifier, str | None]:
    """Build the network with the weights that training starts from, or goes on with.

    Args:
        config: the settings.
        inputs: classes, size and weights.
        options: stem and dropout.
        device: where the model goes.
        last: of the run that is resumed.

    Returns:
        The model, and a sentence on the weights it starts from, if any.

    Raises:
        CheckpointError: weights that do not fit.
    """
    start, classes, preprocess = inputs.start, inputs.splits.classes, inputs.preprocess
    torch.manual_seed(config.seed)
    network = build_network(config.arch, len(classes), preprocess.size, **options)
    said = None
    if start.state is not None:
        try:
            head = pretrained.apply(start, network, config.arch, classes, preprocess.size)
        except CheckpointError as error:
            raise CheckpointError(f"{start.pretrained.used}: {error}") from error
        said = f"starting from {start.pretrained.used}: {head}"
    if last is not None:
        load_state(network, last.model)
    if config.sync_bn:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    model = Classifier(network, preprocess).to(device)
    in_channels_last = device.type != "mps" if config.channels_last is None else config.channels_last
    return model.in_channels_last() if in_channels_last else model, said


def smallest_batch(config: TrainConfig, network: nn.Module, images: int, world: World) -> int:
    """Return how many images a batch of all processes must have: two in each whose BatchNorm takes statistics of them.

    Torch refuses one image where it has one pixel left; elsewhere its statistics would be those of a single image.

    Raises:
        UsageError: the batches are of one image.
        DataError: the images are too few.
    """
    is_frozen = config.freeze_epochs == "all" or config.freeze_epochs >= config.epochs
    if not has_batch_norm(last_layers(network) if is_frozen else network):
        return 2
    if config.sync_bn:  # statistics of all processes, but not of fillers
        return max(2, world.size)
    needs = f"{config.arch} has BatchNorm, which needs two images per batch and process"
    if config.batch_size == 1:
        raise UsageError(f"--batch-size 1: {needs}; type --batch-size 2, or --arch convnext_tiny, which has none")
    if images < 2 * world.size:
        given = f"{images} training images on {world.size} processes"  # a single one is refused with the data
        raise DataError(f"{given}: {needs}; add images, or start fewer processes")
    return 2 * world.size
